"""The command line: parse, call one function, print. `wespeaker-lap VERB --help` for each."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.io.command import FAILED, INTERRUPTED

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode=None,
                  help="Speaker verification on frozen speech encoders, stage by stage.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file")]
SetOption = Annotated[list[str] | None,
                      typer.Option("--set", help="override, section.key=value; repeatable")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
MissingOption = Annotated[str, typer.Option(help="trials without embeddings: error or skip")]
JobsOption = Annotated[int, typer.Option("--nj", help="processes")]
PackOption = Annotated[Path | None, typer.Option(help="pack to corrupt speech with")]
DataArg = Annotated[Path, typer.Argument(help="Kaldi data directory")]
DataArgs = Annotated[list[Path], typer.Argument(help="Kaldi data directories")]
ExpArg = Annotated[Path, typer.Argument(help="folder that training wrote")]


@app.command()
def audit_data(data: DataArg, num_jobs: JobsOption = 1, sample_rate: int = 16000,
               min_seconds: float = 0.1, max_reject_share: float = 0.05) -> None:
    """Decode every recording; write utt2dur, move what cannot be used to rejects.tsv (stage 1)."""
    from wespeaker_lap.data.audit import audit_data_dir
    found = audit_data_dir(data, sample_rate, min_seconds, max_reject_share, num_jobs)
    for line in found.lines():
        logging.info("%s: %s", data, line)


@app.command()
def make_trials(data: DataArg, out: Annotated[Path, typer.Option(help="the list to write")],
                seed: int = 0, max_target: int | None = None) -> None:
    """Make a trial list: all target pairs, as many same-gender non-target pairs (stage 1)."""
    from wespeaker_lap.data import trials as lists
    from wespeaker_lap.data.datadir import load_data_dir
    loaded = load_data_dir(data)
    made = lists.make_trials(loaded.utt2spk, loaded.spk2gender or None, seed, max_target)
    lists.write_trials(out, made)
    logging.info("%s: %d target, %d non-target trials", out, made.num_target, made.num_nontarget)


@app.command()
def show_config(config: ConfigOption = None, overrides: SetOption = None,
                get: Annotated[str, typer.Option(help="one value, as section.key")] = "",
                pretraining: Annotated[bool, typer.Option("--pretraining")] = False) -> None:
    """Check a configuration and print it, every default written out."""
    from wespeaker_lap.config import dump_config, get_value, load_config
    from wespeaker_lap.pretrain import load_pretrain_config
    load = load_pretrain_config if pretraining else load_config
    settings = load(config, overrides or ())
    print(get_value(settings, get) if get else dump_config(settings), end="" if not get else "\n")


@app.command()
def plan(data: DataArgs, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Say what features of some sets will take on disk, and whether the encoder is in reach."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.engine.plan import describe_plan
    print(*describe_plan(load_config(config, overrides or ()), data), sep="\n")


@app.command()
def extract_feats(data: DataArg, out: Annotated[Path, typer.Option(help="feature store")],
                  config: ConfigOption = None, overrides: SetOption = None,
                  device: DeviceOption = "auto") -> None:
    """Write the hidden states of every encoder layer (stage 2)."""
    from wespeaker_lap import build
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.engine import dist, extract
    settings, loaded = load_config(config, overrides or ()), load_data_dir(data)
    with dist.join_world(device) as world:
        frontend = build.build_frontend(settings.frontend).to(world.device)
        extract.extract_feats(frontend, loaded, out, settings.features.codec, world)


@app.command()
def pack_audio(data: DataArgs, out: Annotated[Path, typer.Option(help="folder of the pack")],
               num_jobs: JobsOption = 1, sample_rate: int = 16000) -> None:
    """Write the recordings of audited sets into one file that pre-training reads."""
    from wespeaker_lap.data import packed
    from wespeaker_lap.data.datadir import load_data_dir
    packed.pack_audio([load_data_dir(path) for path in data], out, num_jobs, sample_rate)


@app.command()
def pretrain(audio: Annotated[Path, typer.Option(help="pack of speech")],
             exp_dir: Annotated[Path, typer.Option(help="where everything goes")],
             config: ConfigOption = None, overrides: SetOption = None, noises: PackOption = None,
             rirs: PackOption = None, device: DeviceOption = "auto") -> None:
    """Train an encoder without labels, or go on with a training that stopped."""
    from wespeaker_lap.data.packed import PackedAudio
    from wespeaker_lap.engine import dist
    from wespeaker_lap.pretrain import load_pretrain_config
    from wespeaker_lap.pretrain import train as training
    settings = load_pretrain_config(config, overrides or ())
    speech, *others = (path and PackedAudio(path) for path in (audio, noises, rirs))
    with dist.join_world(device) as world:
        training.pretrain(settings, speech, exp_dir, world, *others)


@app.command()
def probe_layers(encoder: Annotated[str, typer.Argument(help="as frontend.name")], data: DataArg,
                 out: Annotated[Path, typer.Option(help="folder for layers.md, .json, .png")],
                 test_data: Annotated[Path | None, typer.Option(
                     help="set of other speakers; half of DATA's without")] = None,
                 trials: Annotated[Path | None, typer.Option(help="of test_data")] = None,
                 max_utts: Annotated[int | None, typer.Option(help="of a speaker")] = None,
                 shrinkage: Annotated[float, typer.Option(help="of the LDA, 0 to 1")] = 0.1,
                 last_state: Annotated[str | None, typer.Option(
                     help="after_norm or before_norm")] = None,
                 bundle: Annotated[str | None, typer.Option(help="of a weights file")] = None,
                 precision: Annotated[str, typer.Option(help="auto, float32, bf16")] = "auto",
                 seed: int = 0, device: DeviceOption = "auto") -> None:
    """Measure how well each layer of an encoder tells speakers apart: EER after LDA and cosine."""
    from wespeaker_lap import build
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.data.trials import read_trials
    from wespeaker_lap.engine import dist, probe
    from wespeaker_lap.score.probe_plan import plan_probe
    from wespeaker_lap.share.layers import format_table, write_layers
    given = {"name": encoder, "last_state": last_state, "bundle": bundle}
    settings = load_config(overrides=[f"frontend.{key}={json.dumps(value)}"
                                      for key, value in given.items() if value is not None])
    chosen = plan_probe(load_data_dir(data), test_data and load_data_dir(test_data),
                        trials and read_trials(trials), max_utts, seed)
    frontend = build.build_frontend(settings.frontend).to(dist.choose_device(device))
    found = probe.probe_layers(frontend, chosen, shrinkage, precision, seed)
    write_layers(out, found)
    print(format_table(found.rows), end="")


@app.command()
def train(data: Annotated[Path, typer.Option(help="training set")],
          feats: Annotated[Path, typer.Option(help="its feature store")],
          exp_dir: Annotated[Path, typer.Option(help="where everything goes")],
          config: ConfigOption = None, overrides: SetOption = None,
          valid_feats: Annotated[Path | None, typer.Option(help="store of the trials")] = None,
          valid_trials: Annotated[Path | None, typer.Option(help="watched every epoch")] = None,
          device: DeviceOption = "auto") -> None:
    """Train, or go on with a training that stopped (stage 3)."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.data.trials import read_trials
    from wespeaker_lap.engine import dist
    from wespeaker_lap.engine import train as training
    from wespeaker_lap.io.feats import FeatureStore
    if (valid_feats is None) != (valid_trials is None):
        raise ValueError("--valid_feats and --valid_trials go together; give both or neither")
    validation = (training.Validation(FeatureStore(valid_feats), read_trials(valid_trials))
                  if valid_feats and valid_trials else None)
    settings, loaded = load_config(config, overrides or ()), load_data_dir(data)
    with dist.join_world(device) as world:
        training.train(settings, loaded, feats, exp_dir, world, validation)


@app.command()
def average_model(exp_dir: ExpArg, num_avg: Annotated[int | None, typer.Option()] = None) -> None:
    """Average the weights of the last epochs (stage 4)."""
    from wespeaker_lap.engine.checkpoint import average_epochs
    settings, _ = _load_experiment(exp_dir)
    paths = average_epochs(exp_dir, num_avg or settings.score.num_avg)
    logging.info("averaged %d epochs: %s to %s", len(paths), paths[0].stem, paths[-1].stem)


@app.command()
def extract_embeddings(exp_dir: ExpArg, data: DataArg,
                       feats: Annotated[Path, typer.Option(help="the set's feature store")],
                       checkpoint: Annotated[str, typer.Option(
                           help="stem of a file in models/")] = "avg_model",
                       device: DeviceOption = "auto") -> None:
    """Embed every utterance of a set from its stored features (stage 4)."""
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.engine import dist, embed
    utts = sorted(load_data_dir(data).wavs)
    with dist.join_world(device) as world:
        embed.embed_set(exp_dir, feats, utts, data.name, world, checkpoint)


@app.command()
def score(exp_dir: ExpArg, data: DataArg, trials: Annotated[Path, typer.Option()],
          missing: MissingOption = "error") -> None:
    """Cosine scores, EER and minDCF of a trial list (stage 5)."""
    from wespeaker_lap.score.stages import score_trials
    _print_row(score_trials(_scoring_job(exp_dir, data, trials, missing)))


@app.command()
def norm_scores(exp_dir: ExpArg, data: DataArg, trials: Annotated[Path, typer.Option()],
                cohort: Annotated[Path, typer.Option(help="data directory of the cohort")],
                method: Annotated[str, typer.Option(help="asnorm or snorm")] = "asnorm",
                top_n: int | None = None, missing: MissingOption = "error") -> None:
    """Normalise the scores of a trial list with a cohort of speaker means (stage 6)."""
    from wespeaker_lap.score.stages import normalise_trials
    settings, _ = _load_experiment(exp_dir)
    job = _scoring_job(exp_dir, data, trials, missing)
    _print_row(normalise_trials(job, cohort, method, top_n or settings.score.top_n))


@app.command()
def report(exp_dir: ExpArg) -> None:
    """Write RESULTS.md, results.json, DET curves and histograms (stage 8)."""
    from wespeaker_lap.share.report import write_report
    print(write_report(exp_dir).read_text(encoding="utf-8"))


@app.command()
def join_reports(exp_dirs: Annotated[list[Path], typer.Argument(help="folders with results")],
                 out: Annotated[Path, typer.Option(help="the page to write")]) -> None:
    """Put the results of several systems or seeds into one table."""
    from wespeaker_lap.share.report import join_results
    join_results(exp_dirs, out)


@app.command()
def embed(model: ExpArg, audio: Annotated[list[Path], typer.Argument(help="recordings")],
          out: Annotated[Path, typer.Option("--out", "-o", help="folder for xvector.ark/scp")],
          device: DeviceOption = "cpu") -> None:
    """Embed recordings with a trained model; the ids are the file names as given."""
    from wespeaker_lap import load_model
    from wespeaker_lap.io.vectors import write_vectors
    names = [str(path) for path in audio]
    print(write_vectors(out, names, load_model(model, device).embed(list(audio))))


@app.command()
def similarity(model: ExpArg, a: Path, b: Path, device: DeviceOption = "cpu") -> None:
    """Print the cosine similarity of two recordings."""
    from wespeaker_lap import load_model
    print(f"{load_model(model, device).similarity(a, b):.5f}")


def _load_experiment(exp_dir: Path) -> tuple:
    """The configuration and the facts; a folder that is no experiment is told as such."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.io.facts import load_facts
    facts = load_facts(exp_dir)
    return load_config(exp_dir / "config.yaml"), facts


def _scoring_job(exp_dir: Path, data: Path, trials: Path, missing: str):
    from wespeaker_lap.score.stages import ScoringJob
    settings, facts = _load_experiment(exp_dir)
    mean_set = facts["train_set"] if settings.score.subtract_mean else None
    return ScoringJob(exp_dir, data, trials, mean_set, missing, settings.score.p_target)


def _print_row(row) -> None:
    from wespeaker_lap.score.evaluate import format_metrics
    normalised = row.cohort and f", cohort {row.cohort} ({row.cohort_size}, top {row.top_n})"
    logging.info("%s, %s: %d trials (%d target), coverage %.2f %%%s", row.trials, row.norm,
                 row.num_trials, row.num_target, 100 * row.coverage, normalised or "")
    print(format_metrics(row), end="")


def main() -> None:
    """Run one verb; bad input ends in one message on standard error and exit code 1.

    With WESPEAKER_LAP_DEBUG set, the traceback is shown instead.
    """
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(level=logging.INFO if rank == "0" else logging.WARNING,
                        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        app(args=[_underscored(arg) for arg in sys.argv[1:]])
    except SystemExit as done:
        if done.code == INTERRUPTED:
            print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("WESPEAKER_LAP_DEBUG"):
            raise
        print(f"error: {_describe(error)}", file=sys.stderr)
        sys.exit(FAILED)


def _underscored(arg: str) -> str:
    """`--exp_dir` and `--exp-dir` are the same option."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value


def _describe(error: Exception) -> str:
    """The message for a person; one raised in a loader's worker comes with its traceback."""
    text = str(error)
    return text.strip().rsplit("\n", 1)[-1] if text.startswith("Caught ") else text
