"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file")]
SetOption = Annotated[list[str] | None,
                      typer.Option("--set", help="override, section.key=value; repeatable")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
MissingOption = Annotated[str, typer.Option(help="trials without embeddings: error or skip")]
CohortOption = Annotated[Path, typer.Option(help="data directory of the cohort")]
TopOption = Annotated[int | None, typer.Option(
    min=2, help="cohort speakers that count in AS-norm; else as configured")]
JobsOption = Annotated[int, typer.Option("--nj", help="processes")]
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
