"""Prepare LibriSpeech (OpenSLR 12): data directories train, valid and test.

The corpus's own parts are the split: train-*, dev-* (valid) and test-*, which share no reader. The
trials are those of UniPool (arXiv 2409.07770), which come with this recipe.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.data.download import check_md5, fetch, unpack
from wespeaker_lap.data.published import import_unipool
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import name_some, read_lines

URL = "https://www.openslr.org/resources/12/"
TOP_FOLDER = "LibriSpeech"
MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
TRAIN_PARTS = ("train-clean-100", "train-clean-360", "train-other-500")
HOW_TO_GET = "get it with `bash run.sh --stage 0 --stop_stage 0`, or from " + URL
HELD_OUT = {"valid": ("dev-clean", "dev-other"), "test": ("test-clean", "test-other")}
NUM_TRIALS = 36427  # of both lists

RECORDING = re.compile(r"(\d+)-\d+-\d+\.(flac|wav)")


def download(corpus_dir: Path, parts: list[str], url: str) -> None:
    """Fetch, verify and unpack the parts that are not there yet."""
    for part in parts:
        if (corpus_dir / part).is_dir():
            print(f"{corpus_dir / part}: there already")
            continue
        archive = fetch(f"{url}{part}.tar.gz", corpus_dir.parent / f"{part}.tar.gz")
        check_md5(archive, MD5[part])
        aside = corpus_dir / f".{part}"
        shutil.rmtree(aside, ignore_errors=True)
        unpack(archive, TOP_FOLDER, aside)
        # Every archive brings the table of all readers.
        os.replace(aside / "SPEAKERS.TXT", corpus_dir / "SPEAKERS.TXT")
        os.replace(aside / part, corpus_dir / part)
        shutil.rmtree(aside)
        print(f"{corpus_dir / part}: unpacked; {archive} is no longer needed")


def read_readers(path: Path) -> dict[str, tuple[str, str]]:
    """Read SPEAKERS.TXT: reader -> (`m` or `f`, part).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a broken line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --corpus_dir must hold LibriSpeech: "
                                f"{HOW_TO_GET}")
    readers = {}
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith(";") or not line.strip():
            continue
        fields = [field.strip() for field in line.split("|", 4)]  # a name may hold a bar
        if len(fields) != 5 or fields[1] not in ("F", "M"):
            raise ValueError(f"{path}:{number}: expected 'reader | F or M | part | minutes | "
                             f"name', got {line!r}")
        readers[fields[0]] = (fields[1].lower(), fields[2])
    return readers


def find_recordings(folder: Path) -> dict[str, Path]:
    """Find a part's recordings: utterance (`84-121123-0000`) -> file, sorted.

    Raises:
        FileNotFoundError: no such part, or no recording in it.
        ValueError: a recording in another reader's folder, or an utterance twice.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*/*/*")):
        name = RECORDING.fullmatch(path.name)
        if not name:
            continue
        if name[1] != path.parts[-3] or path.stem in found:
            raise ValueError(f"{path}: in another reader's folder, or there twice; unpack "
                             f"{folder.name}.tar.gz anew")
        found[path.stem] = path
    if not found:
        raise FileNotFoundError(f"{folder}: no reader/chapter/….flac in it; --corpus_dir must hold "
                                f"this part of LibriSpeech: {HOW_TO_GET}{folder.name}.tar.gz")
    return found


def write_set(args: argparse.Namespace, name: str, parts: tuple[str, ...],
              readers: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Write a data directory of some parts.

    Returns:
        utterance -> reader.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: a reader who is not in SPEAKERS.TXT, or there in another part.
    """
    wavs, utt2spk = {}, {}
    for part in parts:
        found = find_recordings(args.corpus_dir / part)
        own = {utt: utt.split("-")[0] for utt in found}
        wrong = {reader for reader in own.values() if readers.get(reader, ("", ""))[1] != part}
        if wrong:
            raise ValueError(f"{args.corpus_dir / part}: SPEAKERS.TXT has these readers not, or in "
                             f"another part: {name_some(sorted(wrong))}; unpack it anew")
        wavs.update({utt: str(path.resolve()) for utt, path in found.items()})
        utt2spk.update(own)
    write_data_dir(args.data / name, wavs, utt2spk,
                   {reader: gender for reader, (gender, _) in readers.items()})
    print(f"{args.data / name}: {len(set(utt2spk.values()))} speakers, {len(utt2spk)} utterances")
    return utt2spk


def prepare(args: argparse.Namespace) -> None:
    """Write the three sets, and the trials of two.

    Raises:
        FileNotFoundError: the corpus or a list is missing.
        ValueError: broken tables, or an incomplete list.
    """
    readers = read_readers(args.corpus_dir / "SPEAKERS.TXT")
    for name, parts in {"train": tuple(args.train_parts), **HELD_OUT}.items():
        utts = write_set(args, name, parts, readers)
        if name != "train":
            print(import_unipool(args.lists_dir, args.data, name, utts, args.incomplete_lists,
                                 NUM_TRIALS))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options and fill in what depends on others."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    option = parser.add_argument
    option("--data", type=Path, required=True, help="folder of the data directories")
    option("--corpus_dir", type=Path, default=Path("corpora/LibriSpeech"),
           help="folder with SPEAKERS.TXT and the parts")
    option("--train_parts", type=str.split, default=list(TRAIN_PARTS),
           help="which of the training parts, separated by blanks")
    option("--lists_dir", type=Path, default=Path(__file__).resolve().parent / "lists",
           help="folder with valid.kaldi.gz and test.kaldi.gz")
    option("--incomplete_lists", choices=("error", "skip", "keep"), default="error",
           help="trial lists that name utterances which are not there")
    option("--nj", type=int, default=1, help="as every recipe gets it; changes nothing here")
    option("--seed", type=int, default=42, help="as --nj")
    option("--download", choices=("true", "false"), default="false",
           help="true: fetch the corpus to --corpus_dir and end")
    option("--url", default=URL, help="folder of the archives")
    args = parser.parse_args(argv)
    if not args.train_parts or not set(args.train_parts) <= set(TRAIN_PARTS):
        parser.error(f"--train_parts wants some of {', '.join(TRAIN_PARTS)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    args = parse_args(argv)

    def work() -> None:
        if args.download == "true":
            held_out = [part for parts in HELD_OUT.values() for part in parts]
            download(args.corpus_dir, [*held_out, *args.train_parts], args.url)
        else:
            prepare(args)

    return finish_command("prepare_data.py", work)


if __name__ == "__main__":
    sys.exit(main())
