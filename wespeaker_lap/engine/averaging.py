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
                  select: str | None = None, paths: Mapping[str, Path | None] = NO_PATHS) -> None:
    """Write `models/avg_model.safetensors`, and what it was made of into `avg_model.json`.

    Args:
        exp_dir: of the training.
        world: this process, alone, and its device.
        num_avg, select: see `checkpoint.average_epochs`; None as configured.
        paths: of the training's examples, `data`, `feats`, `noise_scp`, `rir_scp`, `babble_scp`;
            where one is None or lacking, that which training has noted. None are needed where
            `score.bn_batches` is 0.

    Raises:
        FileNotFoundError: there is nothing to average, or the examples are not there.
        ValueError: no validation to choose the best by, or examples of other features.
    """
    exp_dir, facts = Path(exp_dir), load_facts(exp_dir)
    config = load_config(exp_dir / "config.yaml")
    num_avg, select = num_avg or config.score.num_avg, select or config.score.average
    num_batches, material = config.score.bn_batches, None
    if num_batches:  # before anything is written
        material = _find_material(exp_dir, config, paths)
    found = checkpoint.average_epochs(exp_dir, num_avg, select)
    if material is not None:
        num_batches = measure_averaged(exp_dir, config, facts, material, world)
    export_averaged(exp_dir, config)
    eers, names = read_eers(exp_dir), [path.stem for path in found]
    made = {"average": select, "weights": names, "bn_batches": num_batches}
    if select != "ema":
        made["valid_eer"] = [eers.get(checkpoint.epoch_of(path)) for path in found]
    write_text(exp_dir / "models" / f"{checkpoint.AVERAGED}.json", json.dumps(made) + "\n")
    logging.info("averaged (%s): %s; batch norms measured on %d batches", select, " ".join(names),
                 num_batches)


def measure_averaged(exp_dir: Path, config: Config, facts: dict, material: Material,
                     world: World) -> int:
    """Measure the batch norms of the averaged weights anew, and write them into their file.

    Args:
        exp_dir: of the training.
        config, facts: of it.
        material: with the crops that it learnt from, as floats.
        world: this process, alone, and its device.

    Returns:
        On how many batches; 0 where the network has no batch norm.

    Raises:
        ValueError: the material is of other features than the training's.
    """
    check_compatible(exp_dir, material.identity, facts["features"])
    model = net = load_net(exp_dir, config, facts, checkpoint.AVERAGED)
    if material.frontend is not None:
        tuned = config.train.encoder is not None
        frontend = load_frontend(exp_dir, config, facts) if tuned else material.frontend
        model = WaveNet(frontend, net)
    model.to(world.device)
    count = measure_norms(model, net, draw_crops(config, material.source, world,
                                                 config.score.bn_batches))
    path = checkpoint.weights_path(exp_dir, checkpoint.AVERAGED)
    own = {f"net.{name}": value.cpu() for name, value in net.state_dict().items()}
    checkpoint.save_tensors(path, checkpoint.load_tensors(path) | own)
    return count


def _find_material(exp_dir: Path, config: Config, paths: Mapping[str, Path | None]) -> Material:
    """The training's crops, dequantised where they are read."""
    found = find_origin(exp_dir, paths)
    if "data" not in found:
        raise ValueError(f"{exp_dir}/{FILE}: does not say what the model was trained on, which "
                         f"score.bn_batches needs; give --data, and --feats if there are any")
    tables = CopySources(*(found.get(name) for name in ("noise_scp", "rir_scp", "babble_scp")))
    on_host = config.train.model_copy(update={"dequantize": "host"})
    return gather_material(config.model_copy(update={"train": on_host}),
                           load_data_dir(found["data"]), found.get("feats"), tables)
