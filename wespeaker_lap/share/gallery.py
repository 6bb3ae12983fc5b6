"""Enrolled speakers: one mean embedding each, kept in memory and as a safetensors file."""

import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from wespeaker_lap.io.table import name_some, replacing

FORMAT = "wespeaker_lap gallery 1"


class Gallery:
    """Speakers by name.

    Attributes:
        names: in the order of enrolment.

    >>> gallery = Gallery()
    >>> gallery.add("ann", np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
    >>> gallery.names, gallery.vectors.tolist()
    (['ann'], [[0.5, 0.5]])
    """

    def __init__(self):
        self._means: dict[str, np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        """The n speakers, in the order of enrolment."""
        return list(self._means)

    @property
    def vectors(self) -> np.ndarray:
        """(n, E) their mean embeddings, nothing subtracted."""
        return np.stack(list(self._means.values()))

    def __len__(self) -> int:
        return len(self._means)

    def add(self, name: str, embeddings: np.ndarray) -> None:
        """Enrol a speaker.

        Args:
            name: not in use yet.
            embeddings: (k, E) of at least one recording; their mean is kept.

        Raises:
            ValueError: the name is in use or empty, or the embeddings are of another shape.
        """
        if not name.strip() or name in self._means:
            raise ValueError(f"the name {name!r} is empty or enrolled already; remove it first, or "
                             f"take another")
        size = len(next(iter(self._means.values()))) if self._means else embeddings.shape[-1]
        if embeddings.ndim != 2 or not len(embeddings) or embeddings.shape[1] != size:
            raise ValueError(f"want embeddings (k, {size}) of {name}, got {embeddings.shape}")
        self._means[name] = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)

    def remove(self, name: str) -> None:
        """Forget a speaker.

        Raises:
            ValueError: nobody of that name.
        """
        if name not in self._means:
            raise ValueError(f"{name!r} is not enrolled; there are: {name_some(self.names)}")
        del self._means[name]

    def save(self, path: str | Path, model: str) -> None:
        """Write a safetensors file.

        Args:
            path: the file, replaced as a whole.
            model: fingerprint of the model that the embeddings are of.

        Raises:
            ValueError: nobody is enrolled.
        """
        if not self._means:
            raise ValueError(f"{path}: nobody is enrolled, there is nothing to write")
        facts = {"format": FORMAT, "model": model, "names": json.dumps(self.names)}
        with replacing(path) as aside:
            aside.write_bytes(safetensors.numpy.save({"embeddings": self.vectors}, facts))

    @classmethod
    def load(cls, path: str | Path, model: str) -> "Gallery":
        """Read what `save` wrote.

        Args:
            path: the file.
            model: fingerprint of the model that will compare with it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else, or of another model.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such gallery; enrol somebody first")
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                facts, vectors = file.metadata() or {}, file.get_tensor("embeddings")
            names = json.loads(facts["names"])
            fits = facts["format"] == FORMAT and vectors.shape[:1] == (len(names),)
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a gallery ({error}); enrol again") from error
        if not fits:
            raise ValueError(f"{path}: not a whole gallery of this version; enrol again")
        if facts["model"] != model:
            raise ValueError(f"{path}: a gallery of another model, whose embeddings cannot be "
                             f"compared with this one's; enrol again")
        gallery = cls()
        for name, vector in zip(names, vectors, strict=True):
            gallery.add(name, vector[None])
        return gallery
