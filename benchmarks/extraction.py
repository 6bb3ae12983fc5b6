"""Stage 2 against the loop one writes first: one utterance at a time, float32, default threads.

    python benchmarks/extraction.py DATA [--encoder NAME | --base] [--nproc 2] [--runs 5]
        [--precisions float32 bf16] [--minutes 3]

All are timed as whole commands, in turn, on the same recordings, into a fresh folder each; the
figures are medians. A ratio above 1 is in favour of stage 2. `--base` takes an encoder of
WavLM-Base+'s size (12 blocks of 768) with random weights, which is made on the spot: it computes no
features worth having, but takes as long.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch
from kaldiio import WriteHelper
from torchaudio.models import wavlm_model

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.table import write_table

BASE = {"extractor_mode": "group_norm", "extractor_conv_layer_config": None,
        "extractor_conv_bias": False, "encoder_embed_dim": 768, "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 128, "encoder_pos_conv_groups": 16, "encoder_num_layers": 12,
        "encoder_num_heads": 12, "encoder_num_buckets": 320, "encoder_max_distance": 800,
        "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 3072,
        "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False, "encoder_layer_drop": 0.05, "aux_num_out": None}
LARGE = {**BASE, "extractor_mode": "layer_norm", "encoder_embed_dim": 1024,
         "encoder_num_layers": 24, "encoder_num_heads": 16, "encoder_ff_interm_features": 4096,
         "encoder_layer_norm_first": True}


def write_random(folder: Path, shape: dict = BASE) -> Path:
    """Write an encoder with random weights: 190 MB of WavLM-Base+'s size, 630 MB of Large's."""
    torch.manual_seed(0)
    tensors = {name: value.half().contiguous()
               for name, value in wavlm_model(**shape).state_dict().items()}
    folder.mkdir()
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    facts = {"torchaudio.models.wavlm_model": shape, "normalize_waveform": shape is LARGE,
             "normalize_eps": 1e-5, "sample_rate": 16000}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def choose_recordings(data: Path, minutes: float | None, folder: Path) -> Path:
    """The first recordings of a set, as many as fill some minutes, as a set of their own."""
    if minutes is None:
        return data
    loaded, chosen, seconds = load_data_dir(data), [], 0.0
    for utt in sorted(loaded.wavs):
        if seconds < 60 * minutes:
            chosen.append(utt)
            seconds += loaded.durations[utt]
    write_data_dir(folder, {utt: loaded.wavs[utt] for utt in chosen},
                   {utt: loaded.utt2spk[utt] for utt in chosen})
    write_table(folder / "utt2dur", {utt: loaded.durations[utt] for utt in chosen})
    return folder


@torch.inference_mode()
def run_loop(data: Path, encoder: str, out: Path) -> None:
    """The loop: read, encode, write a float32 matrix."""
    frontend = FrozenSSL.load(encoder)
    with WriteHelper(f"ark,scp:{out}/feats.ark,{out}/feats.scp") as writer:
        for utt, path in load_data_dir(data).wavs.items():
            wav = torch.from_numpy(read_audio(path, frontend.sample_rate))
            feats, _ = frontend(wav[None])  # (1, T, L, D)
            writer(utt, feats[0].flatten(1).numpy())


def time_command(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that a command takes; its output only where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{done.stdout}\nextraction.py: {' '.join(command)} failed")
    return time.perf_counter() - start


def time_in_turn(data: Path, encoder: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every run of stage 2, in each precision, and of the loop."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
                str(options.nproc)]
    stage = [sys.executable, *(launcher if options.nproc > 1 else []), "-m", "wespeaker_lap",
             "extract-feats", str(data), "--set", f"frontend.name={encoder}", "--device", "cpu"]
    threads = str(max(1, (os.cpu_count() or 1) // options.nproc))
    environment = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
    loop = [sys.executable, __file__, str(data), "--encoder", encoder, "--loop_into"]
    times: dict[str, list[float]] = {}
    for _ in range(options.runs):
        folder = Path(tempfile.mkdtemp())
        try:
            for precision in options.precisions:
                chosen = ["--set", f"features.precision={precision}", "--out",
                          str(folder / precision)]
                times.setdefault(f"stage 2 in {precision}", []).append(
                    time_command([*stage, *chosen], environment))
            times.setdefault("the loop", []).append(time_command([*loop, str(folder)], {}))
        finally:
            shutil.rmtree(folder)
        print(", ".join(f"{name} {found[-1]:.1f} s" for name, found in times.items()), flush=True)
    return times


def compare(options: argparse.Namespace) -> None:
    """Time all in turn and print the medians."""
    with tempfile.TemporaryDirectory() as made:
        data = choose_recordings(options.data, options.minutes, Path(made, "data"))
        encoder = str(write_random(Path(made, "base"))) if options.base else options.encoder
        hours = sum(load_data_dir(data).durations.values()) / 3600
        times = time_in_turn(data, encoder, options)
    print(f"{60 * hours:.1f} min of audio, {'base' if options.base else encoder}, {options.nproc} "
          f"process(es), {os.cpu_count()} cores")
    loop = statistics.median(times["the loop"])
    for name, found in times.items():
        seconds = statistics.median(found)
        print(f"{name}: {seconds:.1f} s, {3600 * hours / seconds:.1f} x real time "
              f"(factor {seconds / 3600 / hours:.5f}), ratio {loop / seconds:.2f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="audited data directory")
    parser.add_argument("--encoder", default="wavlm_tiny")
    parser.add_argument("--base", action="store_true", help="WavLM-Base+'s size, random weights")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--minutes", type=float, help="of audio; all where not given")
    parser.add_argument("--nproc", type=int, default=2, help="processes of stage 2")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop_into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop_into:
        run_loop(options.data, options.encoder, options.loop_into)
    else:
        compare(options)


if __name__ == "__main__":
    main()
