"""Verbs that make and judge encoders."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import ConfigOption, DataArg, DeviceOption, PackOption, SetOption


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


VERBS = (pretrain, probe_layers)
