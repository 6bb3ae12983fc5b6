"""Prepare VCTK (Edinburgh DataShare): data directories train, valid and test.

Speakers and trials are split as in UniPool (arXiv 2409.07770); its lists come with this recipe.
Sentences 1 to 24, which all speakers read alike, are left out as there.
"""

import argparse
import re
import sys
from pathlib import Path

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.data.download import check_md5, fetch, unpack
from wespeaker_lap.data.published import import_unipool
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import name_some, read_table

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"
MD5 = "8a6ba2946b36fcbef0212cad601f4bfa"
AUDIO_FOLDERS = ("wav48_silence_trimmed", "wav48")  # of release 0.92 and of 0.80
SETS = ("train", "valid", "test")
NUM_TRIALS = {"valid": 16040, "test": 16072}

RECORDING = re.compile(r"(p\d+|s5)_(\d+)(?:_mic([12]))?\.(?:flac|wav)")


def download(corpus_dir: Path, url: str) -> None:
    """Fetch, verify and unpack the corpus, unless it is there already."""
    if any((corpus_dir / name).is_dir() for name in AUDIO_FOLDERS):
        print(f"{corpus_dir}: the corpus is there already")
        return
    archive = fetch(url, corpus_dir.parent / url.rsplit("/", 1)[1])
    check_md5(archive, MD5)
    unpack(archive, ".", corpus_dir)
    print(f"{corpus_dir}: unpacked; {archive} is no longer needed")


def find_recordings(corpus_dir: Path, mic: str, first_sentence: int) -> dict[str, Path]:
    """Find the recordings of one microphone: utterance (`p225_025`) -> file, sorted.

    Args:
        corpus_dir: the corpus.
        mic: `1` or `2`; recordings without a number in their name are always taken.
        first_sentence: lowest number of a sentence.

    Raises:
        FileNotFoundError: no corpus there, or no recordings.
        ValueError: an utterance twice, in two formats for instance.
    """
    folders = [corpus_dir / name for name in AUDIO_FOLDERS if (corpus_dir / name).is_dir()]
    found: dict[str, Path] = {}
    for path in sorted(folders[0].glob("*/*")) if folders else ():
        name = RECORDING.fullmatch(path.name)
        if not name or name[3] not in (None, mic) or int(name[2]) < first_sentence:
            continue
        utt = f"{name[1]}_{name[2]}"
        if utt in found:
            raise ValueError(f"{utt}: two recordings, {found[utt]} and {path}; remove one of them")
        found[utt] = path
    if not found:
        raise FileNotFoundError(
            f"{corpus_dir}: no {' or '.join(AUDIO_FOLDERS)} with recordings of microphone {mic}; "
            f"--corpus_dir must hold VCTK. Get it with `bash run.sh --stage 0 --stop_stage 0`, or "
            f"unpack {URL}")
    return found


def read_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Read the split, `speaker set gender` lines: speaker -> (set, `m` or `f`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a broken line.
    """
    speakers = {}
    for speaker, text in read_table(path).items():
        fields = text.split()
        if len(fields) != 2 or fields[0] not in SETS or fields[1] not in ("m", "f"):
            raise ValueError(f"{path}: {speaker}: expected 'train|valid|test m|f', got {text!r}")
        speakers[speaker] = (fields[0], fields[1])
    return speakers


def prepare(args: argparse.Namespace) -> None:
    """Write the three sets, and the trials of two.

    Raises:
        FileNotFoundError: the corpus or a list is missing.
        ValueError: broken lists, an incomplete one, or a set without recordings.
    """
    speakers = read_speakers(args.lists_dir / "speakers")
    wavs = find_recordings(args.corpus_dir, args.mic, args.first_sentence)
    utt2spk = {utt: utt.split("_")[0] for utt in wavs}
    there = set(utt2spk.values())
    for told, names in (("not in the split, left out", there - speakers.keys()),
                        ("without recordings", speakers.keys() - there)):
        if names:
            print(f"speakers {told}: {name_some(sorted(names))}")
    genders = {speaker: gender for speaker, (_, gender) in speakers.items()}
    for name in SETS:
        own = {utt: spk for utt, spk in utt2spk.items() if speakers.get(spk, ("", ""))[0] == name}
        write_data_dir(args.data / name, {utt: str(wavs[utt].resolve()) for utt in own}, own,
                       genders)
        print(f"{args.data / name}: {len(set(own.values()))} speakers, {len(own)} utterances")
        if name != "train":
            print(import_unipool(args.lists_dir, args.data, name, own, args.incomplete_lists,
                                 NUM_TRIALS[name]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    option = parser.add_argument
    option("--data", type=Path, required=True, help="folder of the data directories")
    option("--corpus_dir", type=Path, default=Path("corpora/VCTK-Corpus-0.92"),
           help=f"folder with {' or '.join(AUDIO_FOLDERS)}")
    option("--mic", choices=("1", "2"), default="1", help="which microphone of release 0.92")
    option("--first_sentence", type=int, default=25, help="sentences before are left out")
    option("--lists_dir", type=Path, default=Path(__file__).resolve().parent / "lists",
           help="folder with speakers, valid.kaldi.gz and test.kaldi.gz")
    option("--incomplete_lists", choices=("error", "skip", "keep"), default="error",
           help="trial lists that name utterances which are not there")
    option("--nj", type=int, default=1, help="as every recipe gets it; changes nothing here")
    option("--seed", type=int, default=42, help="as --nj")
    option("--download", choices=("true", "false"), default="false",
           help="true: fetch the corpus to --corpus_dir and end")
    option("--url", default=URL, help="where the archive is")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    args = parse_args(argv)

    def work() -> None:
        if args.download == "true":
            download(args.corpus_dir, args.url)
        else:
            prepare(args)

    return finish_command("prepare_data.py", work)


if __name__ == "__main__":
    sys.exit(main())
