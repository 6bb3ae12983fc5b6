"""Prepare speech to learn from without labels, noises and impulse responses.

One data directory a source: `speechocean762` (training speakers only), one named like each folder
of unlabelled speech, `synthetic`, `noise`, `rir`. With --copies_of, `<set>_sp` of each audited set:
the set and copies of it at other speeds.

Whoever listens to speechocean762's test speakers here could no longer measure anything on them:
no set may have their recordings.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.speed import add_speed_copies
from wespeaker_lap.io.audio import refuse_pipe
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import name_some, read_table

SPEECHOCEAN, SYNTHETIC, NOISE, RIR = "speechocean762", "synthetic", "noise", "rir"
SPEAKERS = ("utt2spk", "utt2spk.partial")  # names that a folder's table of speakers may have
COPIES = "_sp"  # after the name of a set
RESERVED = {SPEECHOCEAN, SYNTHETIC, NOISE, RIR, "pack", "wav_speed", "", ".."}


@dataclass(frozen=True)
class Source:
    """Utterance -> absolute path, utterance -> speaker, speaker -> gender where it is known."""

    wavs: dict[str, str]
    utt2spk: dict[str, str]
    spk2gender: dict[str, str] = field(default_factory=dict)


def read_wavs(scp: Path, root: Path) -> dict[str, str]:
    """Read a wav.scp with paths relative to a folder.

    Args:
        scp: the table.
        root: the folder.

    Returns:
        utterance -> absolute path, without symlinks.

    Raises:
        FileNotFoundError: the table, or audio that it names, is missing.
        ValueError: a broken line, or a pipe.
    """
    table = read_table(scp)
    for entry in table.values():
        refuse_pipe(entry)
    paths = {utt: (root / entry).resolve() for utt, entry in table.items()}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{scp}: {len(missing)} of {len(paths)} recordings are missing: "
                                f"{name_some(missing, 3)}; its paths are relative to {root}")
    return {utt: str(path) for utt, path in paths.items()}


def read_folder(scp: Path) -> Source:
    """Read a wav.scp beside which there may be speakers, of all or of some of its utterances.

    An utterance without one is its own speaker.
    """
    wavs = read_wavs(scp, scp.parent)
    tables = [scp.parent / name for name in SPEAKERS if (scp.parent / name).is_file()]
    known = read_table(tables[0]) if tables else {}
    return Source(wavs, {utt: known.get(utt, utt) for utt in wavs})


def read_set(path: Path) -> Source:
    """Read a data directory as another recipe wrote it."""
    data = load_data_dir(path, with_durations=False)
    wavs = {utt: str(Path(wav).resolve()) for utt, wav in data.wavs.items()}
    return Source(wavs, data.utt2spk, data.spk2gender)


def read_speechocean(corpus_dir: Path, part: str) -> Source:
    """Read the part `train` or `test` of the corpus."""
    folder = corpus_dir / part
    if not (folder / "wav.scp").is_file():
        raise FileNotFoundError(f"{folder}/wav.scp: no such file; --corpus_dir must be a copy of "
                                f"speechocean762 (with WAVE/, train/ and test/)")
    wavs, utt2spk = read_wavs(folder / "wav.scp", corpus_dir), read_table(folder / "utt2spk")
    if wavs.keys() != utt2spk.keys():
        raise ValueError(f"{folder}: wav.scp and utt2spk name different utterances: "
                         f"{name_some(sorted(wavs.keys() ^ utt2spk.keys()))}")
    return Source(wavs, utt2spk, read_table(folder / "spk2gender"))


def refuse_test_speech(sources: Mapping[str, Source], corpus_dir: Path) -> None:
    """Refuse what is in the corpus's test part.

    Args:
        sources: by name; of the corpus's own, ids and speakers are compared, and of all, files.
        corpus_dir: of speechocean762.

    Raises:
        ValueError: something is; names it.
    """
    test = read_speechocean(corpus_dir, "test")
    train = sources[SPEECHOCEAN]
    found = {"utterances": train.wavs.keys() & test.wavs.keys(),
             "speakers": set(train.utt2spk.values()) & set(test.utt2spk.values())}
    for name, source in sources.items():
        found[f"recordings of {name}"] = set(source.wavs.values()) & set(test.wavs.values())
    for what, names in found.items():
        if names:
            raise ValueError(f"{corpus_dir}: {what} are in the test part, which is to be new to "
                             f"the encoder: {name_some(sorted(names), 3)}; remove them")


def read_sources(args: argparse.Namespace) -> dict[str, Source]:
    """Read everything that the options name, before anything is written."""
    sources = {}
    if args.corpus_dir:
        sources[SPEECHOCEAN] = read_speechocean(args.corpus_dir, "train")
    for folder in args.unlabelled:
        name = folder.name
        if name in RESERVED | sources.keys() or name.endswith(COPIES):
            raise ValueError(f"{folder}: a set cannot be called {name!r}, or there are two; "
                             f"rename the folder")
        sources[name] = read_folder(folder / "wav.scp")
    if args.synthetic_data:
        sources[SYNTHETIC] = read_set(args.synthetic_data)
    if args.corpus_dir:
        refuse_test_speech(sources, args.corpus_dir)
    for name, scp in {NOISE: args.noise_scp, RIR: args.rir_scp}.items():
        if scp:
            sources[name] = read_folder(scp)
    return sources


def prepare(args: argparse.Namespace) -> None:
    """Write a data directory for every source."""
    for name, source in read_sources(args).items():
        write_data_dir(args.data / name, source.wavs, source.utt2spk, source.spk2gender)
        print(f"{args.data / name}: {len(set(source.utt2spk.values()))} speakers, "
              f"{len(source.wavs)} utterances")


def copy_sets(args: argparse.Namespace) -> None:
    """Write `<set>_sp` for some sets: each with copies at other speeds."""
    for name in args.copies_of:
        add_speed_copies(load_data_dir(args.data / name), args.data / (name + COPIES),
                         args.data / "wav_speed" / name, args.speed_factors, args.nj)


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--corpus_dir", type=Path, help="speechocean762: WAVE/, train/, test/")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[],
                        help="folders with wav.scp, paths relative to the folder")
    parser.add_argument("--synthetic_data", type=Path, help="a data directory")
    parser.add_argument("--noise_scp", type=Path, help="paths relative to its folder")
    parser.add_argument("--rir_scp", type=Path, help="impulse responses, the same")
    parser.add_argument("--copies_of", nargs="*", default=[], help="audited sets, below --data")
    parser.add_argument("--speed_factors", type=float, nargs="*", default=[0.9, 1.1])
    parser.add_argument("--nj", type=int, default=1, help="processes that make the copies")
    args = parser.parse_args(argv)
    return finish_command("prepare_data.py",
                          lambda: copy_sets(args) if args.copies_of else prepare(args))


if __name__ == "__main__":
    sys.exit(main())
