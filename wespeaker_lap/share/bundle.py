"""A packed model: a folder or a tar file whose manifest has the SHA-256 of every file.

Nothing in it is a pickle, and nothing is read before its hash was compared.
"""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from wespeaker_lap.io.table import name_some, read_lines, replacing, write_text
from wespeaker_lap.io.weights import hash_file

FORMAT, FORMAT_VERSION = "wespeaker_lap bundle", 1
MANIFEST, CARD = "manifest.json", "README.md"
CONFIG, FACTS, SPEAKERS = "config.yaml", "model.json", "speakers.txt"
WEIGHTS, STATISTICS, THRESHOLDS = "model.safetensors", "statistics.safetensors", "thresholds.json"
ENCODER = "encoder"  # folder of the encoder, where it is included
REQUIRED = (CARD, CONFIG, FACTS, SPEAKERS, WEIGHTS, STATISTICS, THRESHOLDS)
SUFFIXES = (".json", ".md", ".png", ".safetensors", ".txt", ".yaml")
PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")


def seal(directory: Path, facts: dict) -> None:
    """Write the manifest of a folder.

    Args:
        directory: everything else is in there.
        facts: what the manifest says besides the files.

    Raises:
        ValueError: a file of a kind that a bundle does not hold.
    """
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*")
                   if path.is_file() and path.name != MANIFEST)
    for name in names:
        check_name(directory, name)
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **facts,
               "files": {name: hash_file(directory / name) for name in names}}
    write_text(directory / MANIFEST, json.dumps(content, indent=1) + "\n")


def read_manifest(path: Path) -> dict:
    """Read a manifest and look at every name in it, at no other file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another kind, or has names that a bundle does not hold.
    """
    try:
        manifest = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    known = manifest.get("format") if isinstance(manifest, dict) else None
    if known != FORMAT or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{path}: not the manifest of a packed model")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {manifest.get('format_version')}, this toolkit "
                         f"reads {FORMAT_VERSION}; install the version that it was packed with")
    for name in manifest["files"]:
        check_name(path, name)
    missing = [name for name in REQUIRED if name not in manifest["files"]]
    if missing:
        raise ValueError(f"{path}: lists no {', '.join(missing)}; pack the model again")
    return manifest


def check_bundle(directory: Path) -> dict:
    """Compare every file of a packed model with the manifest.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError, ValueError: names what is missing, was changed, or is a pickle.
    """
    manifest = read_manifest(directory / MANIFEST)
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in PICKLES:
            raise ValueError(_tell_pickle(directory, path.relative_to(directory).as_posix()))
    missing = [name for name in manifest["files"] if not (directory / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{directory}: {name_some(missing)} of the manifest not there; "
                                f"fetch or pack the model again")
    changed = [name for name, digest in manifest["files"].items()
               if hash_file(directory / name) != digest]
    if changed:
        raise ValueError(f"{directory}: {name_some(changed)} changed after packing (SHA-256 "
                         f"differs from {MANIFEST}); fetch or pack the model again")
    return manifest


def check_name(where: str | Path, name: str) -> None:
    """Refuse names that lead out of the folder, and kinds of files that a bundle does not hold.

    Args:
        where: what the name is of, for the message.
        name: relative, with slashes.

    Raises:
        ValueError: such a name.
    """
    parts = name.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or not name.isprintable()
    if odd or "\\" in name or parts[0][1:2] == ":":
        raise ValueError(f"{where}: the name {name!r} leads out of the folder; do not use this "
                         f"file")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        raise ValueError(_tell_pickle(where, name))
    if suffix not in SUFFIXES:
        raise ValueError(f"{where}: {name}: a packed model holds {', '.join(SUFFIXES)} files only")


def _tell_pickle(where: str | Path, name: str) -> str:
    return (f"{where}: {name}: files of this kind may be pickles, which can run programs; a packed "
            f"model has safetensors, so do not use this one")


def write_tar(directory: Path, path: Path, top: str) -> None:
    """Write a sealed folder as one tar file; the same folder always gives the same bytes.

    Args:
        directory: see `seal`.
        path: the file, replaced as a whole.
        top: name of the folder inside.
    """
    names = [MANIFEST, *read_manifest(directory / MANIFEST)["files"]]
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = (directory / name).stat().st_size, 0o644
            with (directory / name).open("rb") as file:
                archive.addfile(member, file)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a tar file aside; every member is looked at before the first is written.

    Args:
        path: what `write_tar` wrote.

    Yields:
        The folder, gone after the block.

    Raises:
        ValueError: no tar file, or members that are links, devices, outside of the one folder,
            twice there or of a kind that a bundle does not hold.
    """
    try:
        with tarfile.open(path, "r:") as archive, tempfile.TemporaryDirectory() as folder:
            for name, member in _list_members(path, archive).items():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
            yield Path(folder)
    except tarfile.TarError as error:
        raise ValueError(f"{path}: not a whole tar file of a packed model ({error})") from error


def _list_members(path: Path, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Name below the one folder -> member; of regular files and nothing else."""
    members: dict[str, tarfile.TarInfo] = {}
    tops = set()
    for member in archive.getmembers():
        if member.isdir():
            continue  # folders are made as files need them
        if not member.isreg() or member.issparse():
            raise ValueError(f"{path}: {member.name} is a link, a device or another special file; "
                             f"do not use this archive")
        check_name(path, member.name)
        top, _, name = member.name.partition("/")
        tops.add(top)
        if not name or len(tops) > 1 or name in members:
            raise ValueError(f"{path}: {member.name}: want one folder with each file once; pack "
                             f"the model again")
        members[name] = member
    return members
