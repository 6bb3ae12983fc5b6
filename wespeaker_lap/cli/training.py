"""Verbs that train a back end and embed with it."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import (
    BabbleOption,
    ConfigOption,
    DataArg,
    DeviceOption,
    ExpArg,
    NoiseOption,
    RirOption,
    SetOption,
)
from wespeaker_lap.io.commands import note_command


def train(data: Annotated[Path, typer.Option(help="training set")],
          exp_dir: Annotated[Path, typer.Option(help="where everything goes")],
          feats: Annotated[Path | None, typer.Option(help="its feature store; none where "
                                                          "data.source is wave")] = None,
          config: ConfigOption = None, overrides: SetOption = None,
          init: Annotated[str | None, typer.Option(
              help="trained model to begin with: folder of the training, what pack wrote, "
                   "hf://org/name, or a safetensors file of weights")] = None,
          valid_feats: Annotated[Path | None, typer.Option(help="store of the trials")] = None,
          valid_data: Annotated[Path | None, typer.Option(
              help="their data directory, where data.source is wave")] = None,
          valid_trials: Annotated[Path | None, typer.Option(help="watched every epoch")] = None,
          noise_scp: NoiseOption = None, rir_scp: RirOption = None,
          babble_scp: BabbleOption = None, device: DeviceOption = "auto") -> None:
    """Train, or go on with a training that stopped (stage 3)."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.copy_sources import CopySources
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.data.trials import read_trials
    from wespeaker_lap.engine import dist, resume, validation
    from wespeaker_lap.engine import train as training
    from wespeaker_lap.io.feats import FeatureStore
    from wespeaker_lap.share.opening import open_folder
    if (valid_feats is not None) + (valid_data is not None) != (valid_trials is not None):
        raise ValueError("--valid_trials goes together with either --valid_feats or --valid_data; "
                         "give two of them or none")
    watched = None
    if valid_trials:
        examples = FeatureStore(valid_feats) if valid_feats else load_data_dir(valid_data)
        watched = validation.Validation(examples, read_trials(valid_trials))
    settings, loaded = load_config(config, overrides or ()), load_data_dir(data)
    # A training that goes on has its own weights; only a new one looks for the first ones.
    is_wanted = init is not None and not resume.is_begun(exp_dir)
    is_model = is_wanted and not init.endswith(".safetensors")
    with open_folder(init) if is_model else nullcontext(init) as first, \
            dist.join_world(device) as world:
        training.train(settings, loaded, feats, exp_dir, world, watched,
                       CopySources(noise_scp, rir_scp, babble_scp), first)
    note_command(exp_dir)


def average_model(exp_dir: ExpArg, num_avg: Annotated[int | None, typer.Option(min=1)] = None,
                  select: Annotated[str | None, typer.Option(
                      help="epochs: last, best (by validation EER), or ema, the moving average "
                           "that training has made; else score.average")] = None,
                  bn_batches: Annotated[int | None, typer.Option(
                      min=0, help="batches of training crops that batch norms are measured on; "
                                  "else score.bn_batches")] = None,
                  data: Annotated[Path | None, typer.Option(
                      help="training set, where it is no longer in its place")] = None,
                  feats: Annotated[Path | None, typer.Option(help="its feature store")] = None,
                  noise_scp: NoiseOption = None, rir_scp: RirOption = None,
                  babble_scp: BabbleOption = None, device: DeviceOption = "auto") -> None:
    """Average weights: of the last epochs, of the best, or those averaged already (stage 4)."""
    from wespeaker_lap.engine import averaging, dist
    with dist.join_world(device) as world:
        averaging.average_model(exp_dir, world, num_avg, select, bn_batches, {
            "data": data, "feats": feats, "noise_scp": noise_scp, "rir_scp": rir_scp,
            "babble_scp": babble_scp})
    note_command(exp_dir)


def extract_embeddings(exp_dir: ExpArg, data: DataArg,
                       feats: Annotated[Path | None, typer.Option(
                           help="the set's feature store; without, features are computed")] = None,
                       checkpoint: Annotated[str, typer.Option(
                           help="stem of a file in models/")] = "avg_model",
                       device: DeviceOption = "auto") -> None:
    """Embed every utterance of a set, from its stored features or its recordings (stage 4)."""
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.engine import dist, embed
    loaded = load_data_dir(data)
    with dist.join_world(device) as world:
        embed.embed_set(exp_dir, feats or loaded, sorted(loaded.wavs), data.name, world, checkpoint)
    note_command(exp_dir)


VERBS = (train, average_model, extract_embeddings)
