"""Stage 8: a trained system as one folder or one file, checked before it gets its name."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import safetensors.numpy
import safetensors.torch

from wespeaker_lap import __version__
from wespeaker_lap.config import Config, EncoderFrontend, dump_config
from wespeaker_lap.engine.checkpoint import load_tensors
from wespeaker_lap.engine.frontend import FOLDER as TUNED
from wespeaker_lap.frontends.export import export_frontend
from wespeaker_lap.frontends.loading import FILTER_BANKS
from wespeaker_lap.io.facts import name_encoder
from wespeaker_lap.io.table import write_text
from wespeaker_lap.share import bundle
from wespeaker_lap.share.card import Licences, format_card
from wespeaker_lap.share.encoder import is_public, load_frontend
from wespeaker_lap.share.opening import Parts, open_model
from wespeaker_lap.share.report import write_report
from wespeaker_lap.share.results import read_results


def pack(exp_dir: str | Path, out: str | Path, *, with_encoder: bool = False,
         as_tar: bool = False, licences: Licences | None = None,
         data_dirs: Sequence[str | Path] = (), num_checked: int = 20,
         device: str = "cpu") -> Path:
    """Pack a trained system; it must give the experiment's scores in a process of its own.

    Args:
        exp_dir: of the training, scored (stage 5 or later).
        out: the folder; with `as_tar`, `<out>.tar` is written instead. An older packed model of
            that name is replaced.
        with_encoder: include the encoder, as one that was trained with the network always is.
        as_tar: one file instead of a folder.
        licences: of code, encoder and data, for the card.
        data_dirs: where the recordings of the trials are; None takes those that stage 5 noted.
        num_checked: trials whose scores are computed again.
        device: for that.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: something that belongs into it is missing.
        ValueError: the packed model does not load or gives other scores, or `out` is something
            else. Nothing is left there.
    """
    exp_dir, out = Path(exp_dir), Path(out)
    target = out if not as_tar or out.suffix == ".tar" else out.with_name(f"{out.name}.tar")
    _refuse_others(target, as_tar)
    with open_model(exp_dir) as parts, _staging(target) as staging:
        folder = staging / "model"
        is_included = _fill(folder, exp_dir, parts, with_encoder, licences or Licences())
        found = folder
        if as_tar:
            found = staging / target.name
            bundle.write_tar(folder, found, target.stem)
        place = None if is_included else parts.config.frontend.name
        checked = _check(found, exp_dir, data_dirs, num_checked, device, place)
        logging.info("computed again in a process of its own: %s", checked)
        _replace(found, target, staging)
    return target


def _refuse_others(target: Path, as_tar: bool) -> None:
    """Replace packed models only."""
    is_ours = target.is_file() if as_tar else (target / bundle.MANIFEST).is_file()
    if target.exists() and not is_ours and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target}: is there and no packed model; choose another name (-o)")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target, gone after the block."""
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(found: Path, target: Path, staging: Path) -> None:
    if target.is_dir():
        os.replace(target, staging / "older")
    os.replace(found, target)


def _fill(folder: Path, exp_dir: Path, parts: Parts, with_encoder: bool,
          licences: Licences) -> bool:
    """Write every file of the packed model; returns whether the encoder is among them."""
    folder.mkdir()
    encoder = parts.facts["features"]["encoder"]
    _copy_training(folder, exp_dir, parts)
    write_text(folder / bundle.CONFIG, dump_config(_without_paths(parts.config, encoder)))
    is_tuned = parts.config.train.encoder is not None
    is_included = isinstance(parts.config.frontend, EncoderFrontend) and (with_encoder or is_tuned)
    if is_included:
        whole = load_frontend(parts)
        export_frontend(getattr(whole, "frontend", whole), folder / bundle.ENCODER)
    elif isinstance(parts.config.frontend, EncoderFrontend) and not is_public(encoder):
        logging.warning("nobody else finds the encoder %s by its name; include it with "
                        "--with_encoder, or pass it on beside the model", encoder)
    points = _write_scoring(folder, parts)
    write_report(exp_dir)
    plots = sorted(path.name for path in exp_dir.glob("*.png"))
    for name in ("results.json", "RESULTS.md", *plots):
        shutil.copyfile(exp_dir / name, folder / name)
    card = format_card(read_results(exp_dir / "results.json"), parts.config, parts.facts, licences,
                       points, is_included, plots)
    write_text(folder / bundle.CARD, card)
    bundle.seal(folder, {"toolkit_version": __version__, "encoder": name_encoder(parts.facts),
                         "encoder_included": is_included, "licences": asdict(licences)})
    return is_included


def _copy_training(folder: Path, exp_dir: Path, parts: Parts) -> None:
    """Copy what the training wrote; the weights of an encoder go into its own folder."""
    for source, name in ((exp_dir / "model.json", bundle.FACTS), (parts.weights, bundle.WEIGHTS),
                         (exp_dir / "speakers.txt", bundle.SPEAKERS)):
        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such file; run stages 3 and 4")
        shutil.copyfile(source, folder / name)
    if parts.config.train.encoder is not None:
        tensors = {name: value for name, value in load_tensors(parts.weights).items()
                   if not name.startswith(f"{TUNED}.")}
        (folder / bundle.WEIGHTS).write_bytes(safetensors.torch.save(tensors))


def _without_paths(config: Config, encoder: str) -> Config:
    """The configuration without places of this machine: names stay, folders go."""
    if isinstance(config.frontend, EncoderFrontend):
        frontend = config.frontend.model_copy(update={"name": encoder, "bundle": None})
        config = config.model_copy(update={"frontend": frontend})
    if config.distill is not None:
        teacher = Path(config.distill.teacher).name
        distill = config.distill.model_copy(update={"teacher": teacher})
        config = config.model_copy(update={"distill": distill})
    return config


def _write_scoring(folder: Path, parts: Parts) -> list:
    """Write the mean, the cohort and the operating points; returns the latter."""
    cohort, points = parts.cohort, parts.find_points()
    arrays = {} if parts.mean is None else {"mean": parts.mean}
    if cohort is not None:
        arrays["cohort"] = cohort.vectors
    (folder / bundle.STATISTICS).write_bytes(safetensors.numpy.save(arrays))
    norm = cohort and {"norm": cohort.norm, "cohort": cohort.name, "top_n": cohort.top_n,
                       "num_speakers": len(cohort.vectors)}
    scoring = {"normalisation": norm, "points": [asdict(point) for point in points]}
    write_text(folder / bundle.THRESHOLDS,
               json.dumps(scoring, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return points


def _check(found: Path, exp_dir: Path, data_dirs: Sequence[str | Path], num: int, device: str,
           encoder: str | None) -> str:
    """Load the model in a process of its own and let it compute scores again.

    Args:
        encoder: where the encoder is that the model does not include.
    """
    command = [sys.executable, "-m", "wespeaker_lap", "check-model", str(found), str(exp_dir),
               "--num", str(num), "--device", device]
    for directory in data_dirs:
        command += ["--data", str(directory)]
    if encoder not in (None, FILTER_BANKS) and not is_public(encoder):
        command += ["--encoder", encoder]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().split("\n")[-1].removeprefix("error: ")
        raise ValueError(f"{exp_dir}: not packed, the packed model did not pass its check: "
                         f"{reason}")
    return done.stdout.strip().replace("\n", "; ")
