"""Prepare speechocean762 (OpenSLR 101): data directories train, train_sp, valid and test.

The corpus brings Kaldi tables for train and test whose paths are relative to its folder. Some
training speakers are held back for validation; which ones does not depend on the training seed,
so that runs with other seeds are compared on the same speakers. train_sp is train with faster and
slower copies, each a new speaker: 112 speakers are few to learn from.
"""

import argparse
import sys
from pathlib import Path

from wespeaker_lap.data.datadir import load_data_dir, split_by_speaker, write_data_dir
from wespeaker_lap.data.download import fetch, unpack
from wespeaker_lap.data.speed import add_speed_copies
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import name_some, read_table

URL = "https://www.openslr.org/resources/101/speechocean762.tar.gz"
TOP_FOLDER = "speechocean762"


def download(corpus_dir: Path, url: str) -> None:
    """Fetch and unpack the corpus, unless it is there already."""
    if (corpus_dir / "train" / "wav.scp").is_file():
        print(f"{corpus_dir}: the corpus is there already")
        return
    archive = fetch(url, corpus_dir.parent / url.rsplit("/", 1)[1])
    unpack(archive, TOP_FOLDER, corpus_dir)
    print(f"{corpus_dir}: unpacked; {archive} is no longer needed")


def read_part(corpus_dir: Path, part: str) -> tuple[dict, dict, dict]:
    """Read the tables of `train` or `test`.

    Returns:
        utterance -> absolute path, utterance -> speaker, speaker -> gender.

    Raises:
        FileNotFoundError: the corpus, or audio that its wav.scp names, is missing.
        ValueError: the tables are broken or disagree.
    """
    folder = corpus_dir / part
    if not (folder / "wav.scp").is_file():
        raise FileNotFoundError(
            f"{folder}/wav.scp: no such file; --corpus_dir must be a copy of speechocean762 (with "
            f"WAVE/, train/ and test/). Get it with `bash run.sh --stage 0 --stop_stage 0`, "
            f"or unpack {URL} and pass --corpus_dir")
    paths = {utt: (corpus_dir / path).resolve()
             for utt, path in read_table(folder / "wav.scp").items()}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}/wav.scp: {len(missing)} of {len(paths)} recordings are "
                                f"missing: {name_some(missing, 3)}; copy the whole corpus")
    utt2spk = read_table(folder / "utt2spk")
    if utt2spk.keys() != paths.keys():
        raise ValueError(f"{folder}: wav.scp and utt2spk name different utterances: "
                         f"{name_some(sorted(utt2spk.keys() ^ paths.keys()))}")
    wavs = {utt: str(path) for utt, path in paths.items()}
    return wavs, utt2spk, read_table(folder / "spk2gender")


def prepare(corpus_dir: Path, data: Path, num_valid: int, split_seed: int) -> None:
    """Write `data/{train,valid,test}`.

    Args:
        corpus_dir: the corpus.
        data: folder of the data directories.
        num_valid: number of training speakers held back for validation.
        split_seed: which ones.

    Raises:
        FileNotFoundError: the corpus is missing or incomplete.
        ValueError: broken tables, or a speaker in train and test.
    """
    train, test = read_part(corpus_dir, "train"), read_part(corpus_dir, "test")
    both = set(train[1].values()) & set(test[1].values())
    if both:
        raise ValueError(f"{corpus_dir}: speakers in train and test: {name_some(sorted(both))}")
    wavs, utt2spk, genders = train
    kept, held_out = split_by_speaker(utt2spk, num_valid, split_seed)
    sets = {"train": (wavs, utt2spk, genders, kept), "valid": (wavs, utt2spk, genders, held_out),
            "test": (*test, list(test[1]))}
    for name, (paths, speakers, spk2gender, utts) in sets.items():
        own = {utt: speakers[utt] for utt in utts}
        write_data_dir(data / name, {utt: paths[utt] for utt in utts}, own, spk2gender)
        print(f"{data / name}: {len(set(own.values()))} speakers, {len(own)} utterances")


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--corpus_dir", type=Path, default=Path("corpora/speechocean762"),
                        help="folder with WAVE/, train/ and test/")
    parser.add_argument("--download", choices=("true", "false"), default="false",
                        help="true: fetch the corpus to --corpus_dir and end")
    parser.add_argument("--url", default=URL, help="where the archive is")
    parser.add_argument("--num_valid_speakers", type=int, default=13)
    parser.add_argument("--speed_factors", type=float, nargs="*", default=[0.9, 1.1],
                        help="speeds of the copies in train_sp")
    parser.add_argument("--nj", type=int, default=1, help="processes at a time")
    parser.add_argument("--split_seed", type=int, default=762,
                        help="which training speakers are held back for validation")
    parser.add_argument("--seed", type=int, default=42,
                        help="training seed, as every recipe gets it; changes nothing here")
    args = parser.parse_args(argv)
    if args.num_valid_speakers < 2:
        parser.error("want --num_valid_speakers >= 2, which validation trials need")

    def work() -> None:
        if args.download == "true":
            download(args.corpus_dir, args.url)
        else:
            prepare(args.corpus_dir, args.data, args.num_valid_speakers, args.split_seed)
            add_speed_copies(load_data_dir(args.data / "train"), args.data / "train_sp",
                             args.data / "wav_speed", args.speed_factors, args.nj)

    return finish_command("prepare_data.py", work)


if __name__ == "__main__":
    sys.exit(main())
