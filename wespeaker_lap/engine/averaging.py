"""Stage 4's average: which weights, their mean, the batch norms of it, and its encoder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from wespeaker_lap.config import Config, load_config
from wespeaker_lap.data.copy_sources import CopySources
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.choice import read_eers
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.embed import load_net
from wespeaker_lap.engine.frontend import export_averaged, load_frontend
from wespeaker_lap.engine.material import Material, gather_material
from wespeaker_lap.engine.norms import draw_crops, measure_norms
from wespeaker_lap.engine.wave_net import WaveNet
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.origin import FILE, find_origin
from wespeaker_lap.io.table import write_text

NO_PATHS: Mapping[str, Path | None] = {}


def average_model(exp_dir: str | Path, world: World, num_avg: int | None = None,
                  select: str | None = None, bn_batches: int | None = None,
                  paths: Mapping[str, Path | None] = NO_PATHS) -> None:
    """Write `models/avg_model.safetensors`, and what it was made of into `avg_model.json`.

    Args:
        exp_dir: of the training.
        world: this process, alone, and its device.
        num_avg, select: see `checkpoint.average_epochs`; None as configured.
        bn_batches: on how many batches of crops batch norms are measured; None as configured.
        paths: of the training's examples, `data`, `feats`, `noise_scp`, `rir_scp`, `babble_scp`;
            where one is None or lacking, that which training has noted. Without `bn_batches` none
            are needed.

    Raises:
        FileNotFoundError: there is nothing to average, or the examples are not there.
        ValueError: no validation to choose the best by, or examples of other features.
    """
    exp_dir, facts = Path(exp_dir), load_facts(exp_dir)
    config = load_config(exp_dir / "config.yaml")
    num_avg, select = num_avg or config.score.num_avg, select or config.score.average
    num_batches = config.score.bn_batches if bn_batches is None else bn_batches
    # Found before anything is written.
    material = _find_material(exp_dir, config, facts, paths) if num_batches else None
    found = checkpoint.average_epochs(exp_dir, num_avg, select)
    if material is not None:
        num_batches = measure_averaged(exp_dir, config, facts, material, world, num_batches)
    export_averaged(exp_dir, config)
    _note(exp_dir, select, found, num_batches)


def _note(exp_dir: Path, select: str, found: list[Path], num_batches: int) -> None:
    eers, names = read_eers(exp_dir), [path.stem for path in found]
    made = {"average": select, "weights": names, "bn_batches": num_batches}
    if select != "ema":
        made["valid_eer"] = [eers.get(checkpoint.epoch_of(path)) for path in found]
    write_text(exp_dir / "models" / f"{checkpoint.AVERAGED}.json", json.dumps(made) + "\n")
    logging.info("averaged (%s): %s%s", select, " ".join(names),
                 f"; batch norms measured on {num_batches} batches" if num_batches else "")


def measure_averaged(exp_dir: Path, config: Config, facts: dict, material: Material,
                     world: World, num_batches: int) -> int:
    """Measure the batch norms of the averaged weights anew, and write them into their file.

    Args:
        exp_dir: of the training.
        config, facts: of it.
        material: with the crops that it learnt from, as floats.
        world: this process, alone, and its device.
        num_batches: of crops.

    Returns:
        On how many batches; 0 where the network has no batch norm.
    """
    model = net = load_net(exp_dir, config, facts, checkpoint.AVERAGED)
    if material.frontend is not None:
        tuned = config.train.encoder is not None
        frontend = load_frontend(exp_dir, config, facts) if tuned else material.frontend
        model = WaveNet(frontend, net)
    model.to(world.device)
    count = measure_norms(model, net, draw_crops(config, material.source, world, num_batches))
    path = checkpoint.weights_path(exp_dir, checkpoint.AVERAGED)
    own = {f"net.{name}": value.cpu() for name, value in net.state_dict().items()}
    checkpoint.save_tensors(path, checkpoint.load_tensors(path) | own)
    return count


def _find_material(exp_dir: Path, config: Config, facts: dict,
                   paths: Mapping[str, Path | None]) -> Material:
    """The training's crops, dequantised where they are read."""
    found = find_origin(exp_dir, paths)
    if "data" not in found:
        raise ValueError(f"{exp_dir}/{FILE}: does not say what the model was trained on, on which "
                         f"batch norms are to be measured; give --data, and --feats if there are "
                         f"any, or set score.bn_batches to 0")
    tables = CopySources(*(found.get(name) for name in ("noise_scp", "rir_scp", "babble_scp")))
    on_host = config.train.model_copy(update={"dequantize": "host"})
    material = gather_material(config.model_copy(update={"train": on_host}),
                               load_data_dir(found["data"]), found.get("feats"), tables)
    check_compatible(found.get("feats", found["data"]), material.identity, facts["features"])
    return material
