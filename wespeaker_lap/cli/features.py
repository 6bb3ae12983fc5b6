"""Verbs about configurations and stored features."""

from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import (
    BabbleOption,
    ConfigOption,
    DataArg,
    DataArgs,
    DeviceOption,
    NoiseOption,
    RirOption,
    SetOption,
)


def show_config(config: ConfigOption = None, overrides: SetOption = None,
                get: Annotated[list[str] | None, typer.Option(
                    help="one value, as section.key; repeatable")] = None,
                pretraining: Annotated[bool, typer.Option("--pretraining")] = False) -> None:
    """Check a configuration and print it, every default written out."""
    from wespeaker_lap.config import dump_config, get_value, load_config
    from wespeaker_lap.pretrain import load_pretrain_config
    load = load_pretrain_config if pretraining else load_config
    settings = load(config, overrides or ())
    if get:
        print(*(get_value(settings, key) for key in get), sep="\n")
    else:
        print(dump_config(settings), end="")


def plan(data: DataArgs, config: ConfigOption = None, overrides: SetOption = None,
         training: Annotated[list[Path] | None, typer.Option(
             help="one of the sets that is trained on; repeatable")] = None,
         device: DeviceOption = "cpu",
         nproc: Annotated[int, typer.Option(help="GPUs that share the work")] = 1) -> None:
    """Say what disk and time some sets take, from a short trial, and what is missing for it."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.engine.plan import describe_plan
    settings = load_config(config, overrides or ())
    print(*describe_plan(settings, data, training or (), device, nproc), sep="\n")


def extract_feats(data: DataArg, out: Annotated[Path, typer.Option(help="feature store")],
                  config: ConfigOption = None, overrides: SetOption = None,
                  training: Annotated[bool, typer.Option(
                      "--training", help="store the configuration's segments and copies")] = False,
                  noise_scp: NoiseOption = None, rir_scp: RirOption = None,
                  babble_scp: BabbleOption = None, device: DeviceOption = "auto") -> None:
    """Write the hidden states of the encoder's layers (stage 2)."""
    from wespeaker_lap import build
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.engine import dist, extract
    settings, loaded = load_config(config, overrides or ()), load_data_dir(data)
    with dist.join_world(device) as world:
        frontend = build.build_frontend(settings.frontend, settings.features).to(world.device)
        segments = build.build_segments(settings.features, frontend, training)
        augmenter = load_augmenter(
            build.build_copies(settings.features, training), settings.features.copies_seed, loaded,
            CopySources(noise_scp, rir_scp, babble_scp), frontend.sample_rate)
        extract.extract_feats(frontend, loaded, out, settings.features.codec, world, segments,
                              augmenter, build.choose_precision_name(settings))


def verify_feats(feats: Annotated[Path, typer.Argument(help="feature store")],
                 repair: Annotated[bool, typer.Option("--repair", help="recompute what is "
                                                      "broken")] = False,
                 data: Annotated[Path | None, typer.Option(
                     help="with --repair: the data directory of the store")] = None,
                 config: ConfigOption = None, overrides: SetOption = None,
                 noise_scp: NoiseOption = None, rir_scp: RirOption = None,
                 babble_scp: BabbleOption = None, device: DeviceOption = "auto") -> None:
    """Look at every byte of a feature store; exit code 1 where something is broken and stays so."""
    from wespeaker_lap import build
    from wespeaker_lap.config import load_config
    from wespeaker_lap.data.copy_sources import CopySources
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.engine import dist
    from wespeaker_lap.engine.repair import check_feats
    if repair != (data is not None):
        raise ValueError("--repair and --data go together; give both or neither")
    if data is None:
        lines, status = check_feats(feats)
    else:
        settings, loaded = load_config(config, overrides or ()), load_data_dir(data)
        with dist.join_world(device) as world:
            frontend = build.build_frontend(settings.frontend, settings.features)
            frontend = frontend.to(world.device)
            lines, status = check_feats(feats, frontend, loaded, world,
                                        CopySources(noise_scp, rir_scp, babble_scp))
    print(*lines, sep="\n")
    raise typer.Exit(status)


def bench_io(feats: Annotated[Path, typer.Argument(help="feature store")],
             config: ConfigOption = None, overrides: SetOption = None,
             seconds: Annotated[float, typer.Option(help="about how long to measure")] = 5.0,
             num_workers: Annotated[int | None, typer.Option(
                 help="reading threads; default: the configuration's")] = None,
             device: DeviceOption = "auto") -> None:
    """Measure how fast training will get its batches, and what limits it."""
    from wespeaker_lap.config import load_config
    from wespeaker_lap.engine import dist
    from wespeaker_lap.engine.bench_io import describe_loader
    chosen = [] if num_workers is None else [f"train.num_workers={num_workers}"]
    settings = load_config(config, [*(overrides or ()), *chosen])
    world = dist.World(0, 1, dist.choose_device(device))
    print(*describe_loader(settings, feats, seconds, world), sep="\n")


VERBS = (show_config, plan, extract_feats, verify_feats, bench_io)
