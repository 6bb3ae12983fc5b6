"""Prepare VoxCeleb: data directories vox1 (evaluation), vox2_dev (training) and valid.

Also converts m4a to wav, writes the official trial lists to vox1/trials, and lists MUSAN and the
room impulse responses (musan, rirs) where their folders are given. Running it again costs little:
what is converted stays.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from wespeaker_lap.data.convert import convert_all
from wespeaker_lap.data.datadir import split_by_speaker, write_data_dir
from wespeaker_lap.data.download import fetch
from wespeaker_lap.data.voxceleb import (
    HOW_TO_GET,
    META_FILES,
    META_URL,
    OFFICIAL_LISTS,
    find_audio,
    find_file,
    import_lists,
    read_meta,
    speaker_of,
)
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import name_some, write_table, write_text

NOISE_SUFFIXES = (".wav", ".flac", ".ogg")
MUSAN_CATEGORIES = ("music", "speech", "noise")


def download_lists(folder: Path, base_url: str) -> None:
    """Fetch the official trial lists and metadata; those that cannot be had are named.

    Raises:
        OSError: none of the trial lists could be had.
    """
    print(f"voxceleb: {HOW_TO_GET}.")
    names = [file for file, _ in OFFICIAL_LISTS.values()]
    refused = []
    for name in (*names, *META_FILES):
        try:
            print(f"  {fetch(base_url + name, folder / name)}")
        except OSError as error:
            refused.append(name)
            print(f"  {error}", file=sys.stderr)
    if set(names) <= set(refused):
        raise OSError(f"{base_url}: no trial list could be downloaded; put "
                      f"{', '.join(names)} (one is enough) into {folder} or --vox1_dir")


def find_lists(folders: list[Path]) -> dict[str, Path]:
    """Find the official lists; tells which are absent.

    Raises:
        FileNotFoundError: there is none.
    """
    found = {name: find_file(file, folders) for name, (file, _) in OFFICIAL_LISTS.items()}
    absent = [f"{name} ({OFFICIAL_LISTS[name][0]})" for name, path in found.items() if not path]
    if len(absent) == len(found):
        raise FileNotFoundError(
            f"no official trial list in {' or '.join(map(str, folders))}: wanted at least one of "
            f"{', '.join(absent)}; `bash run.sh --stage 0 --stop_stage 0` fetches "
            f"them, or pass --lists_dir")
    if absent:
        print(f"vox1: trial lists not found and left out: {', '.join(absent)}")
    return {name: path for name, path in found.items() if path}


def find_meta(folders: list[Path]) -> dict:
    """Read the metadata of both corpora as far as the files are there."""
    meta = {}
    for name in META_FILES:
        path = find_file(name, folders)
        if path:
            meta.update(read_meta(path))
        else:
            print(f"voxceleb: no {name}; the genders it holds stay unknown")
    return meta


def convert_set(audio: dict[str, Path], report: Path, args: argparse.Namespace) -> dict[str, str]:
    """Convert the m4a files of a set; the failures are listed in `report`.

    Args:
        audio: utterance -> recording in any format.
        report: table of `path <tab> reason`, absent when nothing failed.
        args: with wav_dir, nj and max_failures.

    Returns:
        utterance -> absolute path of what libsndfile reads, without those that failed.

    Raises:
        ValueError: a larger share than max_failures failed.
    """
    sources = {utt: path for utt, path in audio.items() if path.suffix.lower() == ".m4a"}
    wavs, failures = convert_all(sources, args.wav_dir, args.nj)
    report.unlink(missing_ok=True)
    if failures:
        write_text(report, "".join(f"{sources[u]}\t{why}\n" for u, why in failures.items()))
        told = f"{len(failures)} of {len(sources)} m4a files could not be converted, see {report}"
        if len(failures) > args.max_failures * len(sources):
            raise ValueError(f"{told}; copy these files anew, or allow it with --max_failures "
                             f"(a share, now {args.max_failures})")
        print(told)
    paths = {**audio, **wavs}
    return {utt: str(paths[utt].resolve()) for utt in audio if utt not in failures}


def find_training_audio(args: argparse.Namespace, meta: dict, vox1: Iterable[str]) -> dict:
    """Find VoxCeleb2 dev, without the test part where it can be told.

    Raises:
        ValueError: a speaker of VoxCeleb1 among the training speakers.
    """
    audio = find_audio(args.vox2_dir, skip=("test",))
    test_speakers = {speaker for speaker, person in meta.items() if person.subset == "test"}
    kept = {utt: path for utt, path in audio.items() if speaker_of(utt) not in test_speakers}
    if len(kept) < len(audio):
        print(f"vox2_dev: {len(audio) - len(kept)} utterances of test speakers left out")
    overlap = set(map(speaker_of, vox1)) & set(map(speaker_of, audio))
    if overlap:
        raise ValueError(f"{args.vox2_dir}: holds speakers of {args.vox1_dir}, which must not be "
                         f"trained on: {name_some(sorted(overlap))}; check --vox2_dir")
    return kept


def write_set(path: Path, wavs: dict[str, str], meta: dict) -> None:
    """Write a data directory, with genders as far as they are known."""
    utt2spk = {utt: speaker_of(utt) for utt in wavs}
    speakers = set(utt2spk.values())
    write_data_dir(path, wavs, utt2spk, {s: meta[s].gender for s in speakers if s in meta})
    print(f"{path}: {len(speakers)} speakers, {len(wavs)} utterances")


def prepare_speech(args: argparse.Namespace) -> None:
    """Write vox1 with its trials, vox2_dev and valid. Cheap checks come before the conversion."""
    folders = [folder for folder in (args.lists_dir, args.vox1_dir) if folder]
    lists, meta = find_lists(folders), find_meta([*folders, args.vox2_dir])
    vox1 = find_audio(args.vox1_dir)
    vox2 = find_training_audio(args, meta, vox1)
    vox1_wavs = convert_set(vox1, args.data / "vox1" / "convert_failures.tsv", args)
    report = import_lists(lists, vox1_wavs, args.data / "vox1" / "trials", args.incomplete_lists)
    for name, told in report.items():
        print(f"{name}: {told}")
    write_set(args.data / "vox1", vox1_wavs, meta)
    vox2_wavs = convert_set(vox2, args.data / "vox2_dev" / "convert_failures.tsv", args)
    kept, held_out = split_by_speaker({utt: speaker_of(utt) for utt in vox2_wavs},
                                      args.num_valid_speakers, args.split_seed)
    write_set(args.data / "vox2_dev", {utt: vox2_wavs[utt] for utt in kept}, meta)
    write_set(args.data / "valid", {utt: vox2_wavs[utt] for utt in held_out}, meta)


def find_noise(folder: Path) -> dict[str, Path]:
    """List audio below a folder; the id is the last three parts of the path below it.

    Raises:
        FileNotFoundError: no such folder, or no audio in it.
        ValueError: two files share an id.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in NOISE_SUFFIXES or path.name.startswith("."):
            continue
        name = "/".join(path.relative_to(folder).parts[-3:]).replace(" ", "_")
        if name in found:
            raise ValueError(f"{folder}: {found[name]} and {path} share the id {name!r}; name a "
                             f"folder that holds one copy")
        found[name] = path
    if not found:
        raise FileNotFoundError(f"{folder}: no {', '.join(NOISE_SUFFIXES)} files; check the path")
    return found


def prepare_noises(args: argparse.Namespace) -> None:
    """Write wav.scp of musan and rirs, and each MUSAN file's category."""
    if args.musan_dir:
        noises = find_noise(args.musan_dir)
        write_table(args.data / "musan" / "utt2category",
                    {name: find_category(path) for name, path in noises.items()})
        write_table(args.data / "musan" / "wav.scp", {n: p.resolve() for n, p in noises.items()})
        print(f"{args.data / 'musan'}: {len(noises)} files")
    if args.rirs_dir:
        # RIRS_NOISES also holds noises; the simulated rooms are what recipes use.
        simulated = sorted(args.rirs_dir.rglob("simulated_rirs"))
        rirs = find_noise(simulated[0] if simulated else args.rirs_dir)
        write_table(args.data / "rirs" / "wav.scp", {n: p.resolve() for n, p in rirs.items()})
        print(f"{args.data / 'rirs'}: {len(rirs)} files")


def find_category(path: Path) -> str:
    """Tell music, speech or noise by the folders of a file; noise where none says so.

    >>> find_category(Path("musan/music/fma/music-fma-0000.wav"))
    'music'
    """
    named = [part for part in reversed(path.parts[:-1]) if part in MUSAN_CATEGORIES]
    return named[0] if named else "noise"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options and fill in what depends on others."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    option = parser.add_argument
    option("--data", type=Path, required=True, help="folder of the data directories")
    option("--vox1_dir", type=Path, help="VoxCeleb1, dev and test (test alone does for Vox1-O)")
    option("--vox2_dir", type=Path, help="VoxCeleb2 dev, m4a or converted")
    option("--lists_dir", type=Path,
           help="official trial lists and metadata (default DATA/voxceleb_lists); --vox1_dir is "
                "searched too")
    option("--musan_dir", type=Path)
    option("--rirs_dir", type=Path)
    option("--wav_dir", type=Path, help="where converted m4a go (default DATA/wav_vox2)")
    option("--nj", type=int, default=os.cpu_count(), help="conversions at a time")
    option("--max_failures", type=float, default=0.01,
           help="share of m4a files that may fail to convert")
    option("--incomplete_lists", choices=("error", "skip", "keep"), default="error",
           help="trial lists that name utterances which are not there")
    option("--num_valid_speakers", type=int, default=20)
    option("--split_seed", type=int, default=762, help="which speakers are held back as valid")
    option("--seed", type=int, default=42,
           help="training seed, as every recipe gets it; changes nothing here")
    option("--download", choices=("true", "false"), default="false",
           help="true: fetch the trial lists and metadata to --lists_dir and end")
    option("--url", default=META_URL, help="where the lists and metadata are")
    args = parser.parse_args(argv)
    if args.nj < 1 or args.num_valid_speakers < 2 or not 0 <= args.max_failures <= 1:
        parser.error("want --nj >= 1, --num_valid_speakers >= 2 and --max_failures 0 to 1")
    if args.download == "false" and not (args.vox1_dir and args.vox2_dir):
        parser.error(f"--vox1_dir and --vox2_dir are needed. {HOW_TO_GET}")
    args.lists_dir = args.lists_dir or args.data / "voxceleb_lists"
    args.wav_dir = args.wav_dir or args.data / "wav_vox2"
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    args = parse_args(argv)

    def work() -> None:
        if args.download == "true":
            download_lists(args.lists_dir, args.url)
        else:
            prepare_noises(args)
            prepare_speech(args)

    return finish_command("prepare_data.py", work)


if __name__ == "__main__":
    sys.exit(main())
