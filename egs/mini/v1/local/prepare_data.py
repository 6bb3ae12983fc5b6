"""Speak the mini corpus with espeak-ng and write its data directories.

Nothing is downloaded: the pip package espeakng-loader brings the synthesiser and its voices
(voices.py, beside this file).

espeak-ng keeps state from one sentence to the next, so a sentence sounds a little different after
another one. Each speaker is therefore spoken from the first to the last utterance by a process of
its own, which makes the samples independent of the number of processes and of their order.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path

import voices
from voices import SAMPLE_RATE, SETS, Espeak, Speaker, make_speakers, make_utterance

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import write_text


def list_wavs(data: Path, speaker: Speaker, num_utts: int) -> dict[str, Path]:
    """Utterance id -> wav file of a speaker, in the order in which they are spoken."""
    folder = data / "wav" / SETS[speaker.subset] / speaker.name
    utts = [f"{speaker.name}-{number:04d}" for number in range(num_utts)]
    return {utt: folder / f"{utt}.wav" for utt in utts}


def speak_speaker(data: Path, speaker: Speaker, num_utts: int, seed: int) -> None:
    """Speak all utterances of a speaker, and write those whose file is not there yet."""
    espeak = Espeak()
    for number, path in enumerate(list_wavs(data, speaker, num_utts).values()):
        samples = make_utterance(espeak, speaker, number, seed)
        if not path.is_file():
            write_wav(path, samples, SAMPLE_RATE)


def _run_speaker(*job) -> None:
    """Speak a speaker in a process of its own; what goes wrong ends as one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    try:
        speak_speaker(*job)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"prepare_data.py: {job[1].name}: {error}", file=sys.stderr)
        sys.exit(1)


def run_processes(jobs: list[tuple], num_processes: int) -> None:
    """Call `speak_speaker(*job)` for every job, each in a fresh process.

    A pool would serve several speakers with one process, and would wait for ever for one that
    the C library took down.

    Raises:
        RuntimeError: a process failed; names its speaker.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    waiting, running = list(reversed(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < num_processes:
                job = waiting.pop()
                process = context.Process(target=_run_speaker, args=job, daemon=True)
                process.start()
                running[process.sentinel] = process, job[1].name
            for sentinel in wait(list(running)):
                process, name = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    raise RuntimeError(f"speaking {name} failed with exit code "
                                       f"{process.exitcode}; its message stands above")
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def claim_folder(data: Path, identity: dict) -> None:
    """Make `data/wav` ready: keep it if it holds this very corpus, empty it if it holds another.

    Raises:
        FileExistsError: it holds files that this script did not write.
    """
    folder, stamp = data / "wav", data / "wav" / "made_with.json"
    text = json.dumps(identity, indent=2) + "\n"
    if any((folder / name).exists() for name in SETS):
        if not stamp.is_file():
            raise FileExistsError(f"{folder}: holds files of another origin; move them away or "
                                  f"choose another --data")
        if stamp.read_text() == text:
            return
        print(f"{folder}: made with other settings, speaking it anew")
        for name in SETS:
            shutil.rmtree(folder / name, ignore_errors=True)
    write_text(stamp, text)


def prepare(data: Path, seed: int, sizes: dict[str, tuple[int, int]], num_processes: int) -> None:
    """Write the corpus and the data directories `data/{train,valid,test}`.

    Args:
        data: the folder.
        seed: of everything drawn.
        sizes: set -> (speakers, utterances a speaker).
        num_processes: at a time; changes no sample.
    """
    speakers = make_speakers(seed, {name: size[0] for name, size in sizes.items()})
    claim_folder(data, {
        "seed": seed, "sizes": sizes, "espeakng-loader": version("espeakng-loader"),
        "script": hashlib.sha256(Path(voices.__file__).read_bytes()).hexdigest()})
    files = {speaker: list_wavs(data, speaker, sizes[SETS[speaker.subset]][1])
            for speaker in speakers}
    run_processes([(data, speaker, len(own), seed) for speaker, own in files.items()
                   if not all(path.is_file() for path in own.values())], num_processes)
    for subset, name in enumerate(SETS):
        own = [speaker for speaker in speakers if speaker.subset == subset]
        write_data_dir(
            data / name,
            {utt: str(path.resolve()) for speaker in own for utt, path in files[speaker].items()},
            {utt: speaker.name for speaker in own for utt in files[speaker]})
        print(f"{data / name}: {len(own)} speakers, {sizes[name][1]} utterances each")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options; every `--xxx_size` is `SPEAKERSxUTTERANCES`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--data_seed", "--seed", dest="seed", type=int, default=42,
                        help="of the voices, their sentences and their noise")
    parser.add_argument("--nj", type=int, default=os.cpu_count(), help="processes at a time")
    for name, size in zip(SETS, ("60x20", "10x10", "20x12"), strict=True):
        parser.add_argument(f"--{name}_size", type=parse_size, default=size, metavar="NxM",
                            help=f"speakers x utterances of {name} (default {size})")
    parser.add_argument("--download", choices=("true", "false"), default="false",
                        help="accepted like in the other recipes; there is nothing to download")
    args = parser.parse_args(argv)
    if args.seed < 0 or args.nj < 1:
        parser.error("want --seed >= 0 and --nj >= 1")
    return args


def parse_size(text: str) -> tuple[int, int]:
    """Read `60x20`.

    >>> parse_size("60x20")
    (60, 20)
    """
    fields = text.split("x")
    if len(fields) != 2 or not all(f.isdigit() and 1 <= int(f) < 1000 for f in fields):
        raise argparse.ArgumentTypeError(
            f"want SPEAKERSxUTTERANCES, both 1 to 999, such as 60x20, got {text!r}")
    return int(fields[0]), int(fields[1])


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    args = parse_args(argv)
    if args.download == "true":
        print("mini: nothing to download, stage 1 speaks the corpus")
        return 0
    sizes = {name: getattr(args, f"{name}_size") for name in SETS}
    return finish_command("prepare_data.py", lambda: prepare(args.data, args.seed, sizes, args.nj))


if __name__ == "__main__":
    sys.exit(main())
