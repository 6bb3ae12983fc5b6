"""Many recordings to an xvector.ark/scp, with a list of those that cannot be used."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wespeaker_lap.io.audio import AudioError
from wespeaker_lap.io.table import name_some, write_text
from wespeaker_lap.io.vectors import write_vectors
from wespeaker_lap.share.recording import Recording
from wespeaker_lap.share.speaker import CHUNK_BATCHES, SpeakerModel

UNUSABLE = ("error", "skip")


def embed_wavs(model: SpeakerModel, wavs: Mapping[str, str], directory: str | Path,
               batch_size: int = 8, unusable: str = "error") -> tuple[Path, dict[str, str]]:
    """Embed recordings and write `xvector.{ark,scp}`.

    Args:
        model: what embeds.
        wavs: id -> file.
        directory: where to; made when it is not there.
        batch_size: recordings in a forward pass at most.
        unusable: what to do about recordings that are missing, broken, silent or too short:
            "error", or "skip", which lists them in `rejects.tsv`.

    Returns:
        The scp, and id -> "status: reason" of the recordings that were left out.

    Raises:
        ValueError: an unknown `unusable`, an id that is empty or holds white space, or none can
            be used.
        AudioError: recordings that cannot be used, with "error"; nothing is written.
    """
    _check_wishes(wavs, unusable)
    names, kept, vectors = list(wavs), [], []
    rejects: dict[str, Recording] = {}
    size = CHUNK_BATCHES * max(batch_size, 1)
    with tqdm(total=len(names), desc="embed", unit="utt", disable=None) as progress:
        for start in range(0, len(names), size):
            found = {name: model.inspect(wavs[name]) for name in names[start:start + size]}
            usable = {name: one for name, one in found.items() if one.status == "ok"}
            rejects.update((name, one) for name, one in found.items() if one.status != "ok")
            if usable:
                kept += usable
                vectors.append(model.embed_recordings(list(usable.values()), batch_size))
            progress.update(len(found))
    if rejects and (unusable == "error" or not kept):
        raise AudioError(f"{len(rejects)} of {len(names)} recordings cannot be used: "
                         f"{name_some(f'{one.name}: {one.reason}' for one in rejects.values())}; "
                         f"mend them, or leave them out with --unusable skip")
    scp = write_vectors(directory, kept, np.concatenate(vectors))
    _write_rejects(scp.with_name("rejects.tsv"), rejects)
    return scp, {name: f"{one.status}: {one.reason}" for name, one in rejects.items()}


def _check_wishes(wavs: Mapping[str, str], unusable: str) -> None:
    if unusable not in UNUSABLE:
        raise ValueError(f"want unusable {' or '.join(UNUSABLE)}, got {unusable!r}")
    wrong = [name for name in wavs if name.split() != [name]]
    if wrong:
        raise ValueError(f"ids that are empty or hold white space: "
                         f"{name_some(map(repr, wrong))}; give a wav.scp with ids of your own")


def _write_rejects(path: Path, rejects: Mapping[str, Recording]) -> None:
    """Write `id<TAB>file<TAB>status<TAB>reason` lines; no file where there are none."""
    if not rejects:
        path.unlink(missing_ok=True)
        return
    write_text(path, "".join(f"{name}\t{one.name}\t{one.status}\t{one.reason}\n"
                             for name, one in rejects.items()))
    logging.warning("%d recordings cannot be used, see %s", len(rejects), path)
