"""Verbs that use a trained model on recordings."""

from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import DataArg, DeviceOption, ExpArg


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


def attention(exp_dir: ExpArg, data: DataArg,
              out: Annotated[Path, typer.Option(help="folder for attention.md, .json, .png")],
              feats: Annotated[Path | None, typer.Option(
                  help="the set's feature store; the encoder runs on its recordings without")
              ] = None,
              utt: Annotated[list[str] | None, typer.Option(
                  help="utterance to show over time; repeatable; one is drawn without")] = None,
              max_utts: Annotated[int, typer.Option(help="to measure, drawn from the set")] = 200,
              keep: Annotated[float, typer.Option(
                  help="part of the attention that the suggested layers have")] = 0.9,
              seed: int = 0, device: DeviceOption = "cpu") -> None:
    """Show what layer pooling looks at, over time and over a set, and suggest layers to keep."""
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.share.attention import open_system, write_attention
    loaded = load_data_dir(data)
    system = open_system(exp_dir, loaded, feats, device)
    page = write_attention(out, system, loaded, utt or (), max_utts, keep, seed)
    print(page.read_text(encoding="utf-8"), end="")


VERBS = (embed, similarity, attention)
