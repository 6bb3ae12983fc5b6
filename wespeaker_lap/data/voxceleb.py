"""VoxCeleb on disk: its folder trees, metadata and official trial lists."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lap.data.published import import_list
from wespeaker_lap.io.table import read_lines

META_URL = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
META_FILES = ("vox1_meta.csv", "vox2_meta.csv")
# Name of the trials -> official file, number of trials in it.
OFFICIAL_LISTS = {
    "vox1_O": ("veri_test.txt", 37720),
    "vox1_O_cleaned": ("veri_test2.txt", 37611),
    "vox1_E": ("list_test_all.txt", 581480),
    "vox1_E_cleaned": ("list_test_all2.txt", 579818),
    "vox1_H": ("list_test_hard.txt", 552536),
    "vox1_H_cleaned": ("list_test_hard2.txt", 550894),
}
HOW_TO_GET = (
    "The audio cannot be downloaded automatically: VGG hands out links on request at "
    "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/ (VoxCeleb1 dev and test, VoxCeleb2 dev)")

SPEAKER_ID = re.compile(r"id\d{5}")
# Better first: a converted wav is preferred to the m4a beside it.
SUFFIXES = (".wav", ".flac", ".m4a")
# dev/aac/id… and vox1/dev/wav/id… are the deepest trees in use.
MAX_DEPTH = 4


@dataclass(frozen=True)
class Person:
    """A line of the metadata: `m` or `f`, and the official set, `dev` or `test`."""

    gender: str
    subset: str


def find_audio(root: str | Path, skip: Collection[str] = ()) -> dict[str, Path]:
    """Find the recordings of a VoxCeleb tree, whatever lies between the root and the speakers.

    `<root>/id…/<video>/<file>`, `<root>/wav/id…`, `<root>/dev/aac/id…` and the like are one to
    this function: it descends until folders are called `id` and five digits.

    Args:
        root: the folder.
        skip: names of folders above the speakers to leave out, such as `test`.

    Returns:
        Utterance id -> recording, sorted. The id is `id10001/1zcIwhmdeo4/00001.wav`, also for
        flac and m4a, as in the official lists.

    Raises:
        FileNotFoundError: no such folder, or no recordings below it.
        ValueError: two recordings of one kind share an id.
    """
    root = Path(root)
    found: dict[str, Path] = {}
    for speaker_dir in _find_speaker_dirs(root, skip, MAX_DEPTH):
        for utt, path in _list_speaker(speaker_dir):
            other = found.get(utt)
            if other is None or _rank(path) < _rank(other):
                found[utt] = path
            elif _rank(path) == _rank(other):
                raise ValueError(f"{utt}: two recordings, {other} and {path}; remove one of them, "
                                 f"or name a folder that holds one copy")
    if not found:
        raise FileNotFoundError(
            f"{root}: no {', '.join(SUFFIXES)} files in id…/<video>/ folders, directly or below "
            f"wav/, aac/, dev/ or test/. {HOW_TO_GET}")
    return dict(sorted(found.items()))


def _find_speaker_dirs(folder: Path, skip: Collection[str], depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{folder}: no such folder. {HOW_TO_GET}") from error
    for name in names:
        if SPEAKER_ID.fullmatch(name):
            yield folder / name
        elif depth > 1 and name not in skip:
            yield from _find_speaker_dirs(folder / name, skip, depth - 1)


def _list_speaker(speaker_dir: Path) -> Iterator[tuple[str, Path]]:
    with os.scandir(speaker_dir) as entries:
        videos = [entry.name for entry in entries if entry.is_dir()]
    for video in videos:
        for name in os.listdir(speaker_dir / video):
            stem, suffix = os.path.splitext(name)
            # Hidden files are a half-converted wav or what macOS leaves in archives.
            if suffix.lower() in SUFFIXES and not name.startswith("."):
                yield f"{speaker_dir.name}/{video}/{stem}.wav", speaker_dir / video / name


def _rank(path: Path) -> int:
    return SUFFIXES.index(path.suffix.lower())


def speaker_of(utt: str) -> str:
    """Speaker of an utterance id.

    >>> speaker_of("id10001/1zcIwhmdeo4/00001.wav")
    'id10001'
    """
    return utt.split("/", 1)[0]


def read_meta(path: str | Path) -> dict[str, Person]:
    """Read vox1_meta.csv or vox2_meta.csv, with tabs or commas.

    Args:
        path: the file; its first line names the columns.

    Returns:
        Speaker -> metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no column Gender or Set, or a line with too few columns.
    """
    lines = read_lines(path)
    separator = "\t" if lines and "\t" in lines[0] else ","
    rows = [[field.strip() for field in line.split(separator)] for line in lines]
    try:
        gender, subset = (rows[0].index(name) for name in ("Gender", "Set"))
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path}:1: expected a header with the columns Gender and Set, got "
                         f"{lines[:1]}") from error
    people = {}
    for number, row in enumerate(rows[1:], 2):
        if row == [""]:
            continue
        if len(row) <= max(gender, subset) or row[gender] not in ("m", "f"):
            raise ValueError(f"{path}:{number}: expected the columns {rows[0]}, got "
                             f"{lines[number - 1]!r}")
        people[row[0]] = Person(row[gender], row[subset])
    return people


def find_file(name: str, folders: Collection[Path]) -> Path | None:
    """Find `name` or `name.gz` in the first folder that has it; None if no folder does."""
    candidates = (folder / (name + end) for folder in folders for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def import_lists(lists: Mapping[str, Path], utts: Collection[str], trials_dir: Path,
                 incomplete: str = "error") -> dict[str, str]:
    """Write official trial lists in the Kaldi style.

    Args:
        lists: name of the trials, from OFFICIAL_LISTS -> official file.
        utts: the utterances that there are (a set or a dict: it is asked often).
        trials_dir: gets `<name>.kaldi`.
        incomplete: what to do with a list that names an absent utterance: `error`, `skip` (do
            not write the list), or `keep` (write it as it is, for scoring with missing ones).

    Returns:
        Name -> one sentence about what was done.

    Raises:
        ValueError: a broken list, or an incomplete one under `error`.
    """
    return {name: import_list(path, utts, trials_dir / f"{name}.kaldi", incomplete,
                              OFFICIAL_LISTS[name][1]) for name, path in lists.items()}
