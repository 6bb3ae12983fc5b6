"""What a training took, from its metrics.jsonl; and a table of it."""

from collections.abc import Sequence
from pathlib import Path

from wespeaker_lap.io.metrics import read_records

PEAKS = ("host_gb", "device_gb")


def read_cost(exp_dir: str | Path) -> dict[str, float] | None:
    """Read the time and the memory of a training, over all its sittings.

    Steps that a killed sitting had done and the next one did again count once.

    Args:
        exp_dir: of the training.

    Returns:
        `epochs`; `hours` in training steps, without validation and start; the most memory of a
        process in GB, `host_gb` and on a GPU `device_gb`. None where they were not noted: in a
        packed model, or by an earlier version.
    """
    records = read_records(exp_dir).values()
    steps = [record for record in records if "epoch" not in record]
    epochs = [record for record in records if "epoch" in record]
    if not steps or not epochs or any("seconds" not in record for record in steps):
        return None
    cost = {"epochs": len(epochs), "hours": sum(record["seconds"] for record in steps) / 3600}
    return cost | {name: max(record[name] for record in epochs if name in record)
                   for name in PEAKS if any(name in record for record in epochs)}


def format_costs(costs: Sequence[tuple[str, int, dict[str, float] | None]]) -> str:
    """A Markdown table, one line a training.

    Args:
        costs: system, seed and `read_cost` of each.

    Returns:
        The table; empty where nothing is known of any.
    """
    if not any(cost for _, _, cost in costs):
        return ""
    heads = ["Model", "Seed", "Epochs", "Hours", "Memory (GB)", "GPU memory (GB)"]
    lines = [heads, ["---"] * len(heads)]
    for system, seed, cost in costs:
        cells = [_format(cost or {}, name, spec) for name, spec in (
            ("epochs", "d"), ("hours", ".3f"), ("host_gb", ".2f"), ("device_gb", ".2f"))]
        lines.append([system, str(seed), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _format(cost: dict[str, float], name: str, spec: str) -> str:
    return format(cost[name], spec) if name in cost else "-"
