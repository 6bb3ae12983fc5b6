"""Verbs that use a trained model on recordings.

`verify` and `identify` end with exit code 0 for accepted, 1 for rejected and 2 for an error.
"""

import sys
from contextlib import suppress
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import DeviceOption, EncoderOption, ModelArg
from wespeaker_lap.io.command import REJECTED, UNDECIDED

JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object")]
PointOption = Annotated[str, typer.Option(help="operating point: eer, far_1, far_0.1, min_dcf")]
NormOption = Annotated[str | None, typer.Option(help="scores: none (cosine), asnorm or snorm")]
TrialsOption = Annotated[str | None, typer.Option(help="list that the threshold is of")]
ThresholdOption = Annotated[float | None, typer.Option(help="one of your own")]
GalleryOption = Annotated[Path, typer.Option(help="safetensors file of enrolled speakers")]
UnusableOption = Annotated[str, typer.Option(
    help="recordings that are missing, broken, silent or too short: error, or skip and list them")]


def embed(model: ModelArg,
          audio: Annotated[list[Path], typer.Argument(help="recordings, or one wav.scp")],
          out: Annotated[Path, typer.Option("--out", "-o", help="folder for xvector.ark/scp")],
          batch_size: Annotated[int, typer.Option(help="recordings in a pass at most")] = 8,
          unusable: UnusableOption = "error", json: JsonOption = False,
          encoder: EncoderOption = None, device: DeviceOption = "cpu") -> None:
    """Embed recordings with a trained model; the ids are the table's, or the names as given."""
    from wespeaker_lap import load_model
    from wespeaker_lap.io.table import name_some, read_table
    from wespeaker_lap.share.batch import embed_wavs
    twice = sorted({str(path) for path in audio if audio.count(path) > 1})
    if twice:
        raise ValueError(f"recordings that stand twice: {name_some(twice)}; give each once")
    is_table = len(audio) == 1 and audio[0].suffix == ".scp"
    wavs = read_table(audio[0]) if is_table else {str(path): str(path) for path in audio}
    scp, rejects = embed_wavs(load_model(model, device, encoder), wavs, out, batch_size, unusable)
    if json:
        print(dumps({"scp": str(scp), "num_embedded": len(wavs) - len(rejects),
                          "rejects": rejects}, ensure_ascii=False))
    else:
        print(scp)


def similarity(model: ModelArg, a: Path, b: Path, json: JsonOption = False,
               encoder: EncoderOption = None, device: DeviceOption = "cpu") -> None:
    """Print the cosine similarity of two recordings."""
    from wespeaker_lap import load_model
    score = load_model(model, device, encoder).similarity(a, b)
    print(dumps({"similarity": score}) if json else f"{score:.5f}")


def verify(model: ModelArg, a: Path, b: Path, point: PointOption = "eer", norm: NormOption = None,
           trials: TrialsOption = None, threshold: ThresholdOption = None,
           json: JsonOption = False, encoder: EncoderOption = None,
           device: DeviceOption = "cpu") -> None:
    """Decide whether one speaker said both; exit code 0 accepted, 1 rejected, 2 error."""
    from wespeaker_lap import load_model
    loaded = load_model(model, device, encoder)
    _tell(loaded.verify(a, b, point, norm, trials, threshold), json)


def enroll(model: ModelArg, name: Annotated[str, typer.Argument(help="of the speaker")],
           audio: Annotated[list[Path], typer.Argument(help="recordings of the speaker")],
           gallery: GalleryOption, encoder: EncoderOption = None,
           device: DeviceOption = "cpu") -> None:
    """Add a speaker to a gallery; the file is made where there is none."""
    from wespeaker_lap import load_model
    loaded = load_model(model, device, encoder)
    if gallery.exists():
        loaded.load_gallery(gallery)
    loaded.enroll(name, list(audio))
    loaded.save_gallery(gallery)
    print(f"{gallery}: {len(loaded.gallery)} speakers")


def identify(model: ModelArg, audio: Path, gallery: GalleryOption, point: PointOption = "eer",
             norm: NormOption = None, trials: TrialsOption = None,
             threshold: ThresholdOption = None, json: JsonOption = False,
             encoder: EncoderOption = None, device: DeviceOption = "cpu") -> None:
    """Find the enrolled speaker; exit code 0 accepted, 1 rejected (nobody enrolled), 2 error."""
    from wespeaker_lap import load_model
    loaded = load_model(model, device, encoder)
    loaded.load_gallery(gallery)
    _tell(loaded.identify(audio, point, norm, trials, threshold), json)


def demo(model: ModelArg,
         host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
         port: Annotated[int, typer.Option(help="0 takes a free one")] = 7860,
         gallery: Annotated[Path | None, typer.Option(
             help="safetensors file of enrolled speakers; it follows every change")] = None,
         point: PointOption = "eer", threshold: ThresholdOption = None,
         encoder: EncoderOption = None, device: DeviceOption = "cpu") -> None:
    """Open a page on this computer to verify, enrol and identify voices; needs the extra demo."""
    from wespeaker_lap import load_model
    from wespeaker_lap.share.demo import serve_demo
    from wespeaker_lap.share.demo_desk import Desk
    from wespeaker_lap.share.demo_scale import read_spread

    def make_desk() -> Desk:
        desk = Desk(load_model(model, device, encoder), point, threshold, gallery)
        if desk.point:
            desk.spread = read_spread(model, desk.point)
        return desk

    with suppress(KeyboardInterrupt):  # the way to end it
        serve_demo(make_desk, "/".join(Path(model).parts[-2:]), host, port)
    print("the demo has ended", file=sys.stderr)


def _tell(found, as_json: bool) -> None:
    """Print a decision, its warnings on standard error, and end with its exit code."""
    if as_json:
        print(dumps(asdict(found), ensure_ascii=False))
    elif found.decision is not None:
        name = f" {found.speaker}" if found.speaker else ""
        print(f"{found.decision}{name} score {found.score:.5f} threshold {found.threshold:.5f} "
              f"({found.threshold_source})")
    for warning in found.warnings:
        print(f"{'error' if found.decision is None else 'warning'}: {warning}", file=sys.stderr)
    codes = {"accepted": 0, "rejected": REJECTED, None: UNDECIDED}
    raise typer.Exit(codes[found.decision])


VERBS = (embed, similarity, verify, enroll, identify, demo)
