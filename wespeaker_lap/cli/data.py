"""Verbs that make and check data."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import DataArg, DataArgs, JobsOption


def audit_data(data: DataArg, num_jobs: JobsOption = 1, sample_rate: int = 16000,
               min_seconds: float = 0.1, max_reject_share: float = 0.05) -> None:
    """Decode every recording; write utt2dur, move what cannot be used to rejects.tsv (stage 1)."""
    from wespeaker_lap.data.audit import audit_data_dir
    found = audit_data_dir(data, sample_rate, min_seconds, max_reject_share, num_jobs)
    for line in found.lines():
        logging.info("%s: %s", data, line)


def make_trials(data: DataArg, out: Annotated[Path, typer.Option(help="the list to write")],
                seed: int = 0, max_target: int | None = None) -> None:
    """Make a trial list: all target pairs, as many same-gender non-target pairs (stage 1)."""
    from wespeaker_lap.data import trials as lists
    from wespeaker_lap.data.datadir import load_data_dir
    loaded = load_data_dir(data)
    made = lists.make_trials(loaded.utt2spk, loaded.spk2gender or None, seed, max_target)
    lists.write_trials(out, made)
    logging.info("%s: %d target, %d non-target trials", out, made.num_target, made.num_nontarget)


def pack_audio(data: DataArgs, out: Annotated[Path, typer.Option(help="folder of the pack")],
               num_jobs: JobsOption = 1, sample_rate: int = 16000) -> None:
    """Write the recordings of audited sets into one file that pre-training reads."""
    from wespeaker_lap.data import packed
    from wespeaker_lap.data.datadir import load_data_dir
    packed.pack_audio([load_data_dir(path) for path in data], out, num_jobs, sample_rate)


VERBS = (audit_data, make_trials, pack_audio)
