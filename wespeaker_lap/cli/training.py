"""Verbs that train a back end and embed with it."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import (
    ConfigOption,
    DataArg,
    DeviceOption,
    ExpArg,
    SetOption,
    load_experiment,
)
from wespeaker_lap.io.commands import note_command


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
    note_command(exp_dir)


def average_model(exp_dir: ExpArg, num_avg: Annotated[int | None, typer.Option()] = None) -> None:
    """Average the weights of the last epochs (stage 4)."""
    from wespeaker_lap.engine.checkpoint import average_epochs
    settings, _ = load_experiment(exp_dir)
    paths = average_epochs(exp_dir, num_avg or settings.score.num_avg)
    note_command(exp_dir)
    logging.info("averaged %d epochs: %s to %s", len(paths), paths[0].stem, paths[-1].stem)


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
    note_command(exp_dir)


VERBS = (train, average_model, extract_embeddings)
