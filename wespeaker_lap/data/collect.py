"""Find the recordings below a folder, and give each an utterance id."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import AudioError, read_audio, read_info
from wespeaker_lap.io.riff import refuse_cut_wav

# Better first: of recordings that differ in their ending alone, the first one is kept that can be
# decoded.
READ_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # libsndfile reads them
CONVERT_SUFFIXES = (".m4a", ".aac", ".mp4")  # ffmpeg makes wavs of them
SUFFIXES = READ_SUFFIXES + CONVERT_SUFFIXES


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Attributes:
        root: the folder, absolute.
        names: recordings, as paths relative to it with `/`, sorted.
        rejects: recordings that cannot be used, with the reason.
        others: ending -> number of files that are no recordings.
    """

    root: Path
    names: list[str]
    rejects: dict[str, str]
    others: dict[str, int]

    def path(self, name: str) -> str:
        """The absolute path of a recording."""
        return f"{self.root}/{name}"


def find_recordings(root: str | Path, num_jobs: int = 1) -> Found:
    """Find all recordings below a folder, at any depth; linked folders are followed, once each.

    Hidden files and folders are passed over: half-written files, and what macOS leaves in archives.

    Args:
        root: the folder. Nothing in it is changed.
        num_jobs: processes, which decode recordings that are there in several formats.

    Raises:
        FileNotFoundError: no such folder, or no recordings in it.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give one that holds recordings")
    names, rejects, others = [], {}, Counter()
    for name in _list_files(str(root)):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in SUFFIXES:
            others[suffix or "no ending"] += 1
        elif reason := _refuse_name(name):
            rejects[_printable(name)] = reason
        else:
            names.append(name)
    if not names:
        seen = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5))
        raise FileNotFoundError(f"{root}: no recordings ({', '.join(SUFFIXES)}) that can be used; "
                                f"{len(rejects)} with unusable names; other files: "
                                f"{seen or 'none'}")
    kept, copies = _drop_other_formats(str(root), sorted(names), num_jobs)
    return Found(root, kept, rejects | copies, dict(others.most_common()))


def _list_files(root: str) -> Iterator[str]:
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def _refuse_name(name: str) -> str:
    """Why a path cannot stand in wav.scp, or nothing. An ending follows, so no blank ends it."""
    if _printable(name) != name:
        return "the file name is not UTF-8; rename it"
    if "\n" in name or "\r" in name:
        return "a line break in the file name; rename it"
    return ""


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _drop_other_formats(root: str, names: Sequence[str],
                        num_jobs: int) -> tuple[list[str], dict[str, str]]:
    """Of `a.wav` and `a.mp3` in one folder, which are taken for one recording, keep the wav, but
    the mp3 where the wav cannot be decoded, and the wav again where neither can."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (_rank(name), name)):
        groups.setdefault(_stem(name), []).append(name)
    several = [own for own in groups.values() if len(own) > 1]
    dropped: dict[str, str] = {}
    for own, reasons in zip(several, _try_all(root, several, num_jobs), strict=True):
        best = own[len(reasons) % len(own)]
        other = f"another format of one that is kept ({best})"
        reasons += [other] * (len(own) - len(reasons))
        dropped |= {name: reason for name, reason in zip(own, reasons, strict=True)
                    if name != best}
    return [name for name in names if name not in dropped], dropped


def _try_all(root: str, groups: Sequence[Sequence[str]], num_jobs: int) -> list[list[str]]:
    paths = [[f"{root}/{name}" for name in own] for own in groups]
    if num_jobs <= 1 or len(paths) < 2:
        return [_try_formats(own) for own in paths]
    with open_pool(num_jobs) as pool:
        return pool.map(_try_formats, paths)


def _try_formats(paths: Sequence[str]) -> list[str]:
    """Why those before the first one that can be decoded cannot; what ffmpeg reads is trusted."""
    reasons = []
    for path in paths:
        if path.lower().endswith(CONVERT_SUFFIXES):
            break
        try:
            info = read_info(path)
            refuse_cut_wav(path)
            read_audio(path, info.sample_rate)
            break
        except AudioError as error:
            reasons.append(str(error).removeprefix(f"{path}: "))
    return reasons


def _rank(name: str) -> int:
    return SUFFIXES.index(PurePosixPath(name).suffix.lower())


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def make_ids(names: Iterable[str]) -> dict[str, str]:
    """Name utterances by their folder and file: `ann/s1/01.wav` is `s1-01`.

    Where two would be called the same, their whole paths are taken, and where even these are the
    same without blanks, a number is added. Blanks become `_`, which Kaldi's tables need.

    Args:
        names: recordings, as paths relative to the corpus folder.

    Returns:
        Recording -> utterance id, no two alike, whatever the order of `names`.

    >>> make_ids(["ann/1.wav", "x/bob/1.wav", "y/bob/1.wav", "y/bob/1 a.wav"])
    {'ann/1.wav': 'ann-1', 'x/bob/1.wav': 'x-bob-1', 'y/bob/1 a.wav': 'bob-1_a', 'y/bob/1.wav': \
'y-bob-1'}
    """
    names = sorted(names)
    short = {name: short_id(name) for name in names}
    counts = Counter(short.values())
    wanted = {name: short[name] if counts[short[name]] == 1
              else join_blanks("-".join(PurePosixPath(_stem(name)).parts)) for name in names}
    # A whole path may equal a shorter name that is free, so that one is never given away twice.
    ids, taken = {}, set()
    for name in sorted(names, key=lambda name: (wanted[name] != short[name], name)):
        number, utt = 1, wanted[name]
        while utt in taken:
            number += 1
            utt = f"{wanted[name]}-{number}"
        ids[name] = utt
        taken.add(utt)
    return {name: ids[name] for name in names}


def short_id(name: str) -> str:
    """What an utterance is called where no other one is called the same.

    >>> short_id("ann/s1/0 1.wav")
    's1-0_1'
    """
    return join_blanks("-".join(PurePosixPath(_stem(name)).parts[-2:]))


def join_blanks(text: str) -> str:
    """Put `_` where there is white space: ids must be without.

    >>> join_blanks(" Ann  Lee")
    '_Ann_Lee'
    """
    return re.sub(r"\s+", "_", text)
