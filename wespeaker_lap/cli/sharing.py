"""Verbs that pack a trained model and hand it on."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import DataArg, DeviceOption, EncoderOption, ExpArg, ModelArg

DataOption = Annotated[list[Path] | None, typer.Option(
    help="data directory with the recordings of the trials; repeatable, noted by stage 5")]
LicenceOption = Annotated[str, typer.Option(help="SPDX name, link or words, for the card")]


def pack(exp_dir: ExpArg,
         out: Annotated[Path, typer.Option("--out", "-o", help="the folder to write")],
         with_encoder: Annotated[bool, typer.Option(
             "--with-encoder", help="include the encoder")] = False,
         tar: Annotated[bool, typer.Option("--tar", help="write OUT.tar, not a folder")] = False,
         code_license: LicenceOption = "Apache-2.0", encoder_license: LicenceOption = "not stated",
         data_license: LicenceOption = "not stated", data: DataOption = None,
         num: Annotated[int, typer.Option(min=1, help="trials to compute again")] = 20,
         device: DeviceOption = "cpu") -> None:
    """Pack a trained system, checked in a process of its own (stage 8)."""
    from wespeaker_lap.share.card import Licences
    from wespeaker_lap.share.pack import pack as pack_model
    licences = Licences(code_license, encoder_license, data_license)
    print(pack_model(exp_dir, out, with_encoder=with_encoder, as_tar=tar, licences=licences,
                     data_dirs=data or (), num_checked=num, device=device))


def check_model(model: ModelArg, exp_dir: ExpArg, data: DataOption = None,
                num: Annotated[int, typer.Option(min=1, help="trials to compute again")] = 20,
                encoder: EncoderOption = None, device: DeviceOption = "cpu") -> None:
    """Compute scores of an experiment again, from the recordings; fails where they differ."""
    from wespeaker_lap import load_model
    from wespeaker_lap.share.reproduce import reproduce_scores
    loaded = load_model(model, device, encoder)
    for one in reproduce_scores(loaded, exp_dir, data or (), num):
        print(f"{one.score_file}: {one.num_scores} scores, largest difference "
              f"{one.difference:.5f} (up to {one.tolerance:.5f} is rounding)")


def push(directory: Annotated[Path, typer.Argument(help="folder that pack wrote")],
         location: Annotated[str, typer.Argument(help="hf://org/name")],
         private: Annotated[bool, typer.Option("--private", help="if it is new")] = False) -> None:
    """Upload a packed model to the Hugging Face hub."""
    from wespeaker_lap.share.hub import push_bundle
    address = push_bundle(directory, location, private)
    logging.info("uploaded; load_model(%r) finds it", location)
    print(address)


def export_onnx(model: ModelArg,
                out: Annotated[Path, typer.Option("--out", "-o", help="the file to write")],
                part: Annotated[str, typer.Option(
                    help="backend: hidden states in; whole: waveforms in")] = "backend",
                opset: Annotated[int | None, typer.Option(
                    help="version of the ONNX operators; the exporter's choice without")] = None,
                encoder: EncoderOption = None) -> None:
    """Write a trained model as an ONNX graph that gives the same embeddings."""
    from wespeaker_lap.share import onnx
    done = onnx.export_onnx(model, out, part, opset, encoder)
    found = done.difference
    print(f"{done.path}: {part}, opset {done.opset}, {done.path.stat().st_size / 1e6:.1f} MB; "
          f"largest difference from PyTorch, {found.seconds[0]:g} to {found.seconds[-1]:g} s: "
          f"{found.absolute:.2g}, {found.cosine:.2g} in cosine")


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


VERBS = (pack, check_model, push, export_onnx, attention)
