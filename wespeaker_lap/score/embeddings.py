"""The embeddings of an experiment as scoring takes them: of a set, of a cohort, the mean off."""

from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.asnorm import speaker_means
from wespeaker_lap.score.cosine import subtract_mean


def read_set(exp_dir: Path, set_name: str) -> tuple[list[str], np.ndarray]:
    """Ids and (n, E) embeddings of a set, as the network gave them."""
    return read_vectors(exp_dir / "embeddings" / set_name / "xvector.scp")


def centre(exp_dir: Path, vectors: np.ndarray, mean_set: str | None) -> np.ndarray:
    """Subtract the mean embedding of a set.

    Args:
        exp_dir: of the training.
        vectors: (n, E).
        mean_set: name of the set; None for no subtraction.

    Raises:
        FileNotFoundError: the mean is not there.
    """
    if mean_set is None:
        return vectors
    path = exp_dir / "embeddings" / mean_set / "mean_vec.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; embed {mean_set} (stage 4), or set "
                                f"score.subtract_mean=false")
    return subtract_mean(vectors, np.load(path, allow_pickle=False))


def read_cohort(exp_dir: Path, cohort_dir: Path) -> tuple[list[str], np.ndarray]:
    """The C speakers of a data directory and (C, E), the means of their embeddings."""
    utt2spk = load_data_dir(cohort_dir).utt2spk
    return speaker_means(*read_set(exp_dir, cohort_dir.name), utt2spk)
