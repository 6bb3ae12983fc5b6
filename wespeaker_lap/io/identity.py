"""The identity of a feature store: what its numbers are, so that no model meets foreign ones."""

import json
from pathlib import Path

# These say of which data a store is, not what its numbers mean: two stores may differ in them
# and still be used together. `shards` says how the entries are cut into files, `segments` that a
# training set's utterances are in it in parts (see `data.segments`).
DATA_FIELDS = ("data_hash", "augmentation", "toolkit_version", "shards", "segments")
# How the numbers were rounded while they were computed. It is recorded, since a store must go on in
# the precision that it began in. But it is no other feature: bf16 moves states by one to three
# percent of their deviation, and a model must take both precisions anyhow, because new recordings
# are computed in float32 whatever its training set was.
ROUNDING_FIELDS = ("precision",)
# What a field that is absent stands for: stores of earlier versions, and those of made-up features.
DEFAULTS = {"layers": "all", "frame_stride": 1, "segments": None, "precision": "float32"}
NEEDED_FIELDS = ("codec", "num_layers", "dim")  # without them no entry can be read


def read_identity(directory: str | Path) -> dict:
    """Read feats.json of a store.

    Raises:
        FileNotFoundError: there is none: this is no store.
        ValueError: it is not JSON, or lacks what a reader needs.
    """
    path = Path(directory) / "feats.json"
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, so {directory} is no feature store; "
                                f"run stage 2") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); remove the folder and run stage 2") from None
    lacking = [name for name in NEEDED_FIELDS if not isinstance(identity, dict)
               or name not in identity]
    if lacking:
        raise ValueError(f"{path}: no {', '.join(lacking)}; remove the folder and run stage 2")
    return identity


def compare_identity(have: dict, want: dict, ignore: tuple[str, ...] = ()) -> list[str]:
    """List the fields in which two identities differ, each as a phrase for a message.

    A field that is absent is equal to its default.

    >>> compare_identity({"dim": 4, "codec": "float16"}, {"dim": 8, "codec": "float16"})
    ['dim is 4, expected 8']
    """
    have, want = DEFAULTS | have, DEFAULTS | want
    names = sorted((have.keys() | want.keys()) - set(ignore))
    return [f"{name} is {have.get(name)!r}, expected {want.get(name)!r}"
            for name in names if have.get(name) != want.get(name)]


def check_compatible(directory: str | Path, have: dict, want: dict) -> None:
    """Refuse a store whose numbers mean something else than those a model was trained on.

    Raises:
        ValueError: names the folder and every differing field.
    """
    differing = compare_identity(have, want, ignore=DATA_FIELDS + ROUNDING_FIELDS)
    if differing:
        raise ValueError(f"{directory}: not the features this model was trained on: "
                         f"{'; '.join(differing)}. Extract them again with the model's config")
