"""Verbs that use a trained model on recordings."""

from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import DeviceOption, ExpArg


def embed(model: ExpArg, audio: Annotated[list[Path], typer.Argument(help="recordings")],
          out: Annotated[Path, typer.Option("--out", "-o", help="folder for xvector.ark/scp")],
          device: DeviceOption = "cpu") -> None:
    """Embed recordings with a trained model; the ids are the file names as given."""
    from wespeaker_lap import load_model
    from wespeaker_lap.io.vectors import write_vectors
    names = [str(path) for path in audio]
    print(write_vectors(out, names, load_model(model, device).embed(list(audio))))


def similarity(model: ExpArg, a: Path, b: Path, device: DeviceOption = "cpu") -> None:
    """Print the cosine similarity of two recordings."""
    from wespeaker_lap import load_model
    print(f"{load_model(model, device).similarity(a, b):.5f}")


VERBS = (embed, similarity)
