"""What the demo does with recordings: from files to HTML, with every error told in words."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path

import numpy as np

from wespeaker_lap.score.operating import OperatingPoint, choose_point
from wespeaker_lap.share.demo_scale import Spread
from wespeaker_lap.share.demo_views import (
    ADVICE,
    name_files,
    show_decision,
    show_identity,
    show_message,
)
from wespeaker_lap.share.speaker import SpeakerModel

PAIR = ("First recording", "Second recording")
NUM_RANKED = 10


def told_in_words(action: Callable[..., str]) -> Callable[..., str]:
    """Let an action show what it would raise for its user's input or the disk."""
    @wraps(action)
    def run(*args: object) -> str:
        try:
            return action(*args)
        except (ValueError, OSError) as error:
            return show_message(str(error), is_error=True)
    return run


class Desk:
    """A model, a threshold and the enrolled speakers; every action returns HTML.

    Args:
        model: whose gallery is used.
        point: operating point of the threshold, unless one is given.
        threshold: one of the user's own, on cosines.
        gallery_path: safetensors file that is read now, if it is there, and follows every change;
            None keeps the speakers in memory alone.

    Raises:
        ValueError: the model has no such operating point, a threshold that is no number, or a
            gallery that does not fit the model.

    Attributes:
        threshold, source: what scores are compared with, and where it comes from.
        spread: the scores that the threshold was measured on, where somebody gives them.
    """

    def __init__(self, model: SpeakerModel, point: str = "eer", threshold: float | None = None,
                 gallery_path: Path | None = None):
        self.model, self.gallery_path = model, gallery_path
        self.point: OperatingPoint | None = None
        self.spread: Spread | None = None
        if threshold is None:
            self.point = choose_point(model.find_points(), point)
            self.threshold, self.source = self.point.threshold, self.point.describe()
        elif np.isfinite(threshold):
            self.threshold, self.source = threshold, "given by the caller"
        else:
            raise ValueError(f"want a threshold that is a finite number, got {threshold}")
        self._choice = {"point": point, "threshold": threshold}
        if gallery_path is not None and gallery_path.exists():
            model.load_gallery(gallery_path)

    @property
    def names(self) -> list[str]:
        """The enrolled speakers."""
        return self.model.gallery.names

    @told_in_words
    def verify(self, first: str | None, second: str | None) -> str:
        """Compare two files; None where there is none yet."""
        if not first or not second:
            return show_message("Give two recordings: record them or upload them.", is_error=True)
        found = self.model.verify(first, second, **self._choice)
        if first == second:  # the server names uploads by what is in them
            names, remarks = {first: "Both recordings"}, ["The two recordings are the same file."]
        else:
            names, remarks = dict(zip((first, second), PAIR, strict=True)), []
        warnings = tuple(dict.fromkeys(remarks + [name_files(text, names)
                                                  for text in found.warnings]))
        return show_decision(replace(found, warnings=warnings), self.point, self.spread)

    @told_in_words
    def identify(self, path: str | None) -> str:
        """Rank the enrolled speakers by their likeness to a file; None where there is none."""
        if not path:
            return show_message("Give a recording: record it or upload it.", is_error=True)
        if not self.names:
            return show_message("Nobody is enrolled. Enrol speakers first, or load a gallery.",
                                is_error=True)
        found = self.model.identify(path, num_ranked=NUM_RANKED, **self._choice)
        warnings = tuple(name_files(text, {path: "The recording"}) for text in found.warnings)
        return show_identity(replace(found, warnings=warnings), len(self.names), self.point)

    @told_in_words
    def enroll(self, name: str, paths: Sequence[str]) -> str:
        """Enrol a speaker by the mean embedding of some files."""
        name = name.strip()
        if not name or not paths:
            wanted = "a name" if not name else "a recording or several"
            return show_message(f"Give {wanted}.", is_error=True)
        names = {path: Path(path).name for path in paths}
        recordings = [self.model.inspect(path) for path in names]
        bad = [one for one in recordings if one.status != "ok"]
        if bad:
            reasons = [f"{names[one.name]}: {name_files(one.reason, names)}" for one in bad]
            return show_message(f"{name} was not enrolled", reasons, ADVICE, is_error=True)
        self.model.gallery.add(name, self.model.embed_recordings(recordings))
        self._write()
        warnings = [name_files(text, names) for one in recordings for text in one.warnings]
        count = f"{len(names)} recording{'s' if len(names) > 1 else ''}"
        return show_message(f"{name} is enrolled, with {count}", warnings)

    @told_in_words
    def remove(self, chosen: Sequence[str]) -> str:
        """Forget speakers."""
        if not chosen:
            return show_message("Choose who is to be removed.", is_error=True)
        for name in chosen:
            self.model.gallery.remove(name)
        self._write()
        return show_message(f"Removed: {', '.join(chosen)}")

    @told_in_words
    def load(self, path: str) -> str:
        """Take the speakers of a gallery file in place of those there are."""
        try:
            self.model.load_gallery(path)
        except ValueError as error:
            return show_message(name_files(str(error), {path: Path(path).name}), is_error=True)
        self._write()
        return show_message(f"Loaded {len(self.names)} speakers")

    def export(self, path: Path) -> Path | None:
        """Write the gallery for a download; None where nobody is enrolled."""
        if not self.names:
            return None
        self.model.save_gallery(path)
        return path

    def _write(self) -> None:
        """Let the gallery's file follow; who was removed last is gone from the disk as well."""
        if self.gallery_path is None:
            return
        try:
            if self.names:
                self.model.save_gallery(self.gallery_path)
            else:
                self.gallery_path.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(f"the change counts until the demo ends, but {self.gallery_path} cannot "
                          f"be written: {error}; save the gallery elsewhere") from error
