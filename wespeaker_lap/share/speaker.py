"""The inference interface: load a trained model, embed recordings, compare, verify, identify."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from wespeaker_lap import build
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import choose_device
from wespeaker_lap.frontends.sources import hash_weights
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import AudioError
from wespeaker_lap.io.table import read_table
from wespeaker_lap.score.asnorm import as_norm
from wespeaker_lap.score.cosine import cosine_scores, subtract_mean
from wespeaker_lap.score.operating import OperatingPoint, choose_point
from wespeaker_lap.share.decision import Decision, Threshold, decide, decline, take_threshold
from wespeaker_lap.share.encoder import load_frontend
from wespeaker_lap.share.gallery import Gallery
from wespeaker_lap.share.inference import embed_samples
from wespeaker_lap.share.opening import Cohort, open_model
from wespeaker_lap.share.recording import Recording, read_recording

Audio = str | Path | np.ndarray
CHUNK_BATCHES = 8  # that are read before they are sorted by length and embedded


class SpeakerModel:
    """A trained system: recordings to embeddings to decisions.

    Args:
        frontend: the encoder it was trained on.
        net: (B, T, L, D) -> (B, E).
        codec: of the features it was trained on; features are rounded alike, so that an
            embedding is the one that stage 4 computes.
        mean: (E,) mean embedding of the training set, or None: nothing is subtracted.
        cohort: what scores can be normalised with, or None.
        find_points: gives the operating points when they are first asked for.

    Attributes:
        gallery: the speakers that were enrolled.
    """

    def __init__(self, frontend: FrozenSSL, net: nn.Module, codec: str, mean: np.ndarray | None,
                 cohort: Cohort | None = None,
                 find_points: Callable[[], Sequence[OperatingPoint]] = tuple):
        self.frontend, self.net, self.codec, self.mean = frontend, net, codec, mean
        self.cohort, self.find_points, self.gallery = cohort, find_points, Gallery()

    def inspect(self, audio: Audio) -> Recording:
        """Read and judge a recording without embedding it; see `recording.Recording`."""
        return read_recording(audio, self.frontend.sample_rate, self.frontend.min_samples)

    def embed(self, audio: Audio | Sequence[Audio], batch_size: int = 8) -> np.ndarray:
        """Embed one recording or several.

        Args:
            audio: a file, samples (S,) float in [-1, 1] at the encoder's rate, or a list of
                either.
            batch_size: recordings in a forward pass at most.

        Returns:
            (E,) float32 for one recording, (n, E) for a list; each as it would be alone.

        Raises:
            AudioError: a recording that cannot be used: missing, broken, silent, or shorter than
                the encoder's window.
            ValueError: samples of another type or shape, or an empty list.
        """
        if not isinstance(audio, list | tuple):
            return self.embed([audio])[0]
        if not audio:
            raise ValueError("no recordings to embed")
        chunk = CHUNK_BATCHES * max(batch_size, 1)
        return np.concatenate([
            self.embed_recordings([self.inspect(one) for one in audio[start:start + chunk]],
                                  batch_size)
            for start in range(0, len(audio), chunk)])

    def embed_recordings(self, recordings: Sequence[Recording], batch_size: int = 8) -> np.ndarray:
        """Embed what `inspect` has read.

        Returns:
            (n, E) float32, finite.

        Raises:
            AudioError: a recording whose status is not "ok", or whose embedding is not finite.
        """
        for one in recordings:
            if one.status != "ok":
                raise AudioError(f"{one.name}: {one.reason}")
        vectors = embed_samples(self.frontend, self.net, self.codec,
                                [one.samples for one in recordings], batch_size)
        for one, vector in zip(recordings, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise AudioError(f"{one.name}: its embedding is not finite; look at the audio")
        return vectors

    def embed_table(self, scp_path: str | Path,
                    batch_size: int = 8) -> tuple[list[str], np.ndarray]:
        """Embed the recordings of a wav.scp.

        Returns:
            The n ids, and (n, E) float32.

        Raises:
            ValueError: a broken table; for recordings as `embed`.
        """
        table = read_table(scp_path)
        return list(table), self.embed(list(table.values()), batch_size)

    def similarity(self, a: Audio, b: Audio) -> float:
        """Cosine of two recordings' embeddings, the training mean subtracted.

        Args:
            a, b: files or samples, as for `embed`.

        Returns:
            In [-1, 1]; the number that stage 5 writes for this pair.
        """
        first, second = self.embed([a, b])
        return float(self.score(first[None], second, "none")[0])

    def score(self, enrolled: np.ndarray, test: np.ndarray, norm: str = "none") -> np.ndarray:
        """Compare an embedding with others.

        Args:
            enrolled: (n, E) embeddings as `embed` gives them.
            test: (E,) one more.
            norm: "none" for the cosine, "asnorm" or "snorm" with the model's cohort.

        Returns:
            (n,) float64, the numbers that stages 5 and 6 write.

        Raises:
            ValueError: the model has no such cohort.
        """
        vectors = np.vstack([enrolled, test]).astype(np.float32)
        vectors = vectors if self.mean is None else subtract_mean(vectors, self.mean)
        rows, last = np.arange(len(enrolled)), np.full(len(enrolled), len(enrolled))
        scores = cosine_scores(vectors, vectors, rows, last)
        if norm == "none":
            return scores
        if self.cohort is None or norm != self.cohort.norm:
            raise ValueError(f"the model has no cohort for {norm!r} scores; it has "
                             f"{'none' if self.cohort is None else self.cohort.norm}")
        return as_norm(scores, vectors, vectors, rows, last, self.cohort.vectors,
                       self.cohort.top_n)

    def verify(self, a: Audio, b: Audio, point: str = "eer", norm: str | None = None,
               trials: str | None = None, threshold: float | None = None) -> Decision:
        """Decide whether one speaker said both.

        Args:
            a, b: files or samples, as for `embed`.
            point: operating point, "eer", "far_1", "far_0.1" or "min_dcf".
            norm: "none" (cosine), "asnorm" or "snorm"; None takes normalised scores where the
                model has operating points of them.
            trials: the list that the threshold was measured on; None takes the largest.
            threshold: one of your own, on cosines where `norm` is None.

        Raises:
            ValueError: no such operating point, a threshold that is no number, or samples of
                another type or shape.
        """
        chosen = self._choose(point, norm, trials, threshold)
        recordings = [self.inspect(a), self.inspect(b)]
        blocked = decline(recordings, chosen)
        if blocked:
            return blocked
        first, second = self.embed_recordings(recordings)
        score = float(self.score(first[None], second, chosen.norm)[0])
        return decide(score, chosen, recordings)

    def _choose(self, point: str, norm: str | None, trials: str | None,
                threshold: float | None) -> Threshold:
        if threshold is not None:
            if not np.isfinite(threshold):
                raise ValueError(f"want a threshold that is a number, got {threshold}")
            return Threshold(float(threshold), "given by the caller", norm or "none")
        return take_threshold(choose_point(self.find_points(), point, norm, trials))

    def enroll(self, name: str, audio: Audio | Sequence[Audio]) -> None:
        """Enrol a speaker in the gallery by the mean embedding of some recordings.

        Raises:
            AudioError, ValueError: as `embed`, or the name is in use.
        """
        recordings = list(audio) if isinstance(audio, list | tuple) else [audio]
        self.gallery.add(name, self.embed(recordings))

    def identify(self, audio: Audio, point: str = "eer", norm: str | None = None,
                 trials: str | None = None, threshold: float | None = None,
                 num_ranked: int = 5) -> Decision:
        """Find the enrolled speaker whose voice it is, or nobody.

        The threshold is that of a single comparison: false acceptances grow with the gallery.

        Args:
            audio: a file or samples, as for `embed`.
            point, norm, trials, threshold: as for `verify`.
            num_ranked: speakers in the ranking.

        Raises:
            ValueError: nobody is enrolled; otherwise as `verify`.
        """
        if not len(self.gallery):
            raise ValueError("nobody is enrolled; enrol speakers or load a gallery first")
        chosen, recording = self._choose(point, norm, trials, threshold), self.inspect(audio)
        blocked = decline([recording], chosen)
        if blocked:
            return blocked
        embedding = self.embed_recordings([recording])[0]
        scores = self.score(self.gallery.vectors, embedding, chosen.norm)
        order, names = np.argsort(-scores, kind="stable"), self.gallery.names
        ranking = tuple((names[row], float(scores[row])) for row in order[:num_ranked])
        return decide(float(scores[order[0]]), chosen, [recording], names[order[0]], ranking)

    def fingerprint(self) -> str:
        """SHA-256 that tells embeddings of this model from those of others."""
        encoder = self.frontend.identity().get("weights_sha256", self.frontend.name)
        return hashlib.sha256(f"{hash_weights(self.net.state_dict())} {encoder}".encode()
                              ).hexdigest()

    def save_gallery(self, path: str | Path) -> None:
        """Write the enrolled speakers to a safetensors file."""
        self.gallery.save(path, self.fingerprint())

    def load_gallery(self, path: str | Path) -> None:
        """Read enrolled speakers in place of those there are; refuses those of another model."""
        self.gallery = Gallery.load(path, self.fingerprint())

    # WeSpeaker's names. Its similarity is (cosine + 1) / 2; this one is the cosine.
    extract_embedding, extract_embedding_list = embed, embed_table
    compute_similarity, register, recognize = similarity, enroll, identify


def load_model(source: str | Path, device: str = "cpu",
               encoder: str | Path | None = None) -> SpeakerModel:
    """Load a trained model; the same scores wherever it comes from.

    Args:
        source: the folder that training wrote, after stage 4 (averaged weights, training mean);
            what `pack` wrote, a folder or a tar file; or `hf://org/name[@revision]`.
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.
        encoder: where its encoder is, as `frontend.name`, if it is not found by name.

    Raises:
        FileNotFoundError: no trained model there, or weights of the encoder that are not in reach.
        ValueError: the encoder is not the one that it was trained on, or files do not fit.
    """
    chosen = choose_device(device)
    with open_model(source) as parts:
        frontend = load_frontend(parts, encoder).to(chosen)
        features = parts.facts["features"]
        net = build.build_net(parts.config.model, features["num_layers"], features["dim"])
        checkpoint.load_net(parts.weights, net)
    return SpeakerModel(frontend, net.eval().to(chosen), features["codec"], parts.mean,
                        parts.cohort, parts.find_points)
