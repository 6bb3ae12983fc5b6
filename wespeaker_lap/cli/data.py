"""Verbs that make and check data."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import (
    DataArg,
    DataArgs,
    JobsOption,
    MinSecondsOption,
    RateOption,
    RejectShareOption,
)


def audit_data(data: DataArg, num_jobs: JobsOption = 1, sample_rate: RateOption = 16000,
               min_seconds: MinSecondsOption = 0.1,
               max_reject_share: RejectShareOption = 0.05) -> None:
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


def make_data(wav_dir: Annotated[Path, typer.Option(help="folder of recordings; never changed")],
              out: Annotated[Path, typer.Option(help="folder of the data directories")],
              spk_from: Annotated[str, typer.Option(
                  help="who speaks: parent (the folder), regex or csv")] = "parent",
              regex: Annotated[str, typer.Option(
                  help="searched in the path below wav_dir; its group (?P<spk>...) speaks")] = "",
              csv: Annotated[Path | None, typer.Option(
                  help="table with the columns path (for --spk_from csv), speaker, gender")] = None,
              valid: Annotated[str, typer.Option(
                  help="speakers held back: a number, a share below 1, or 0")] = "0.1",
              test: Annotated[str, typer.Option(help="the same for the trials")] = "0.2",
              seed: Annotated[int, typer.Option(help="of the split and the trials")] = 0,
              max_target: Annotated[int, typer.Option(help="target trials of a list")] = 20_000,
              sample_rate: RateOption = 16000, min_seconds: MinSecondsOption = 0.1,
              max_reject_share: RejectShareOption = 0.05,
              shared_sound: Annotated[str, typer.Option(
                  help="one sound under two speakers: error, or drop all copies")] = "error",
              num_jobs: JobsOption = 1) -> None:
    """Make data directories, trials and an audit page of a folder of recordings (stage 1)."""
    from wespeaker_lap.data.corpus import Wishes, write_corpus, write_rejects
    from wespeaker_lap.data.split import parse_amount
    from wespeaker_lap.data.study import study_corpus
    from wespeaker_lap.share.corpus_page import write_pages
    held_out = {"valid": parse_amount(valid, "--valid"), "test": parse_amount(test, "--test")}
    corpus = study_corpus(Wishes(
        wav_dir, out, spk_from, regex, csv, held_out, seed, max_target, sample_rate, min_seconds,
        max_reject_share, shared_sound, num_jobs))
    write_rejects(corpus)
    page, html = write_pages(corpus)
    logging.info("%s and %s: the audit", page, html)
    for remark in corpus.remarks:
        if remark.level != "error":
            logging.info("%s: %s", remark.level, remark.text)
    write_corpus(corpus)
    for name, speakers in corpus.sets.items():
        logging.info("%s: %d speakers, %d utterances", out / name, len(speakers),
                     len(corpus.of_set(name)))


def pack_audio(data: DataArgs, out: Annotated[Path, typer.Option(help="folder of the pack")],
               num_jobs: JobsOption = 1, sample_rate: RateOption = 16000) -> None:
    """Write the recordings of audited sets into one file that pre-training reads."""
    from wespeaker_lap.data import packed
    from wespeaker_lap.data.datadir import load_data_dir
    packed.pack_audio([load_data_dir(path) for path in data], out, num_jobs, sample_rate)


VERBS = (audit_data, make_trials, make_data, pack_audio)
