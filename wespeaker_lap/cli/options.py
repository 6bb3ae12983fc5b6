"""Arguments and options that several verbs share."""

import math
from pathlib import Path
from typing import Annotated

import typer


def _refuse_nan(value: float) -> float:
    """Infinite values, too; a bound refuses neither of them."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file")]
SetOption = Annotated[list[str] | None,
                      typer.Option("--set", help="override, section.key=value; repeatable")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
MissingOption = Annotated[str, typer.Option(help="trials without embeddings: error or skip")]
CohortOption = Annotated[Path, typer.Option(help="data directory of the cohort")]
TopOption = Annotated[int | None, typer.Option(
    min=2, help="cohort speakers that count in AS-norm; else as configured")]
JobsOption = Annotated[int, typer.Option("--nj", min=1, help="processes")]
RateOption = Annotated[int, typer.Option(min=1, help="samples per second that the encoder wants")]
MinSecondsOption = Annotated[float, typer.Option(
    min=0, callback=_refuse_nan, help="shorter recordings are rejected")]
RejectShareOption = Annotated[float, typer.Option(
    min=0, max=1, callback=_refuse_nan, help="more rejects than this share are an error")]
PackOption = Annotated[Path | None, typer.Option(help="pack to corrupt speech with")]
NoiseOption = Annotated[Path | None, typer.Option(help="wav.scp of noises, to augment with; paths "
                                                       "relative to its folder")]
RirOption = Annotated[Path | None, typer.Option(help="the same of impulse responses")]
BabbleOption = Annotated[Path | None, typer.Option(help="the same of speech; else the set itself")]
DataArg = Annotated[Path, typer.Argument(help="Kaldi data directory")]
DataArgs = Annotated[list[Path], typer.Argument(help="Kaldi data directories")]
ModelArg = Annotated[str, typer.Argument(
    help="trained model: folder of the training, what pack wrote, or hf://org/name")]
EncoderOption = Annotated[str | None, typer.Option(
    help="where the model's encoder is, if it is not found by name")]
ExpArg = Annotated[Path, typer.Argument(help="folder that training wrote")]


def load_experiment(exp_dir: Path) -> tuple:
    """The configuration and the facts; a folder that is no experiment is told as such."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.io.facts import load_facts
    facts = load_facts(exp_dir)
    return load_config(exp_dir / "config.yaml"), facts
