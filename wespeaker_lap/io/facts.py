"""model.json: the facts of the data that a trained model is built from, beside its config."""

import json
from collections.abc import Sequence
from pathlib import Path

from wespeaker_lap.io.table import read_lines, write_text


def save_facts(exp_dir: str | Path, features: dict, speakers: Sequence[str], train_set: str,
               num_params: int, further: dict[str, dict] | None = None) -> None:
    """Write what a model needs to be built again besides its config: model.json, speakers.txt.

    Args:
        exp_dir: of the training.
        features: identity of what it learns from, before the first step.
        speakers: the class names, in class order.
        train_set: name of the set.
        num_params: of the network.
        further: `tuned`, in which fields the features are others since the encoder is tuned;
            `init`, the system whose weights it began with.
    """
    facts = {"features": features, "num_speakers": len(speakers), "train_set": train_set,
             "num_params": num_params, **(further or {})}
    write_text(Path(exp_dir) / "speakers.txt", "".join(f"{speaker}\n" for speaker in speakers))
    write_text(Path(exp_dir) / "model.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")


def save_tuned(exp_dir: str | Path, tuned: dict) -> None:
    """Note in model.json in which fields the features have changed with their encoder."""
    facts = {**load_facts(exp_dir), "tuned": tuned}
    write_text(Path(exp_dir) / "model.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")


def find_features(facts: dict) -> dict:
    """The identity of the features that a model wants now: of its tuned encoder, if it has one."""
    return {**facts["features"], **facts.get("tuned", {})}


def name_encoder(facts: dict) -> str:
    """What a model's encoder is called; a tuned one after that which the tuning began with."""
    return facts.get("init", {}).get("encoder") or facts["features"]["encoder"]


def load_facts(exp_dir: str | Path) -> dict:
    """Read model.json.

    Raises:
        FileNotFoundError: this is no experiment folder.
        ValueError: it is not JSON.
    """
    path = Path(exp_dir) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, so {exp_dir} is no trained model; give the "
                                f"folder that stage 3 wrote")
    try:
        return json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
