"""How long a run will take, from short trials here and now."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine.batches import BATCH_SECONDS, encode_batch, make_batches
from wespeaker_lap.engine.dist import choose_precision
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio

NUM_UTTS = 20
MAX_UTT_SECONDS = 30.0  # of each of them, from its start
TRIAL_SECONDS = 10.0  # noise that is encoded where there are no recordings yet
BUDGET_SECONDS = 30.0  # a trial that has taken so long ends with what it has
CPU_BATCH = 16  # examples of a training step that is timed without a GPU


@dataclass(frozen=True)
class EncoderSpeed:
    """Seconds of audio that one process encodes in a second, and what it was timed on."""

    speed: float
    timed_on: str


def choose_sample(sets: Sequence[DataDir], num_utts: int = NUM_UTTS) -> dict[str, float]:
    """Choose recordings of all lengths, evenly spread from the shortest to the longest.

    Args:
        sets: those without durations are passed over.
        num_utts: how many, if there are as many.

    Returns:
        Audio file -> seconds.
    """
    lengths = sorted((seconds, data.wavs[utt]) for data in sets
                     for utt, seconds in data.durations.items())
    count = min(num_utts, len(lengths))
    chosen = [lengths[int((i + 0.5) * len(lengths) / count)] for i in range(count)]
    return {path: seconds for seconds, path in chosen}


@torch.inference_mode()
def time_encoder(frontend: FrozenSSL | Selection, sample: dict[str, float],
                 device: torch.device, precision: torch.dtype | None = None) -> EncoderSpeed:
    """Time decoding and encoding, batched as in stage 2.

    Args:
        frontend: on the device.
        sample: audio file -> seconds; noise is taken where it is empty.
        device: that computes.
        precision: of the autocast.

    Raises:
        AudioError: a recording is broken or gone; names it.
    """
    rate = frontend.sample_rate
    noise = np.random.default_rng(0).standard_normal(round(TRIAL_SECONDS * rate)) / 100
    noise = noise.astype(np.float32)
    # The first call pays for what later ones reuse.
    encode_batch(frontend, ["warm-up"], [noise[:rate]], precision)
    seconds = {path: min(length, MAX_UTT_SECONDS) for path, length in sample.items()}
    batches = make_batches(seconds or {"noise": TRIAL_SECONDS},
                           min(BATCH_SECONDS, frontend.max_seconds))
    started, done, num_done = time.perf_counter(), 0.0, 0
    # Long and short ones in turn, should the time run out.
    for batch in [*batches[::2], *batches[1::2]]:
        waves = [read_audio(path, rate)[:round(MAX_UTT_SECONDS * rate)] if sample else noise
                 for path in batch]
        encode_batch(frontend, batch, waves, precision)
        done += sum(len(wave) for wave in waves) / rate
        num_done += len(batch)
        if time.perf_counter() - started > BUDGET_SECONDS:
            break
    what = f"{num_done} utterances of these sets" if sample else f"{TRIAL_SECONDS:g} s of noise"
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    return EncoderSpeed(done / (time.perf_counter() - started), f"{what}{threads}")


def time_training(config: Config, frontend: FrozenSSL | Selection, num_speakers: int,
                  device: torch.device, num_steps: int = 2) -> float:
    """Time steps of the back end and its classifier on noise.

    Losses beside the classifier's and the optimiser are left out, which are small.

    Args:
        config: of the run.
        frontend: whose features have L layers of D numbers.
        num_speakers: N of the classifier.
        device: that computes.
        num_steps: that are timed, after one that is not.

    Returns:
        Examples a second in one process.
    """
    rate = frontend.sample_rate / frontend.frame_shift
    num_frames = max(1, round(config.train.crop_seconds * rate))
    # On a GPU large batches are what makes it fast; a CPU takes as long for each example.
    size = config.train.batch_size
    size = size if device.type == "cuda" else min(size, CPU_BATCH)
    net = build.build_net(config.model, frontend.num_layers, frontend.dim).to(device)
    head = build.build_head(config.loss, config.model.embed_dim, num_speakers).to(device)
    feats = torch.randn(size, num_frames, frontend.num_layers, frontend.dim, device=device)
    speakers = torch.arange(size, device=device) % num_speakers
    precision = choose_precision(config.train.precision, device)
    started = 0.0
    for step in range(num_steps + 1):
        if step == 1:
            started = time.perf_counter()
        with torch.autocast(device.type, precision, enabled=precision is not None):
            embeddings = net(feats)  # (B, E)
        loss, _ = head(embeddings.float(), speakers, 0.0)
        loss.backward()
        loss.item()  # waits for the device
    return num_steps * size / (time.perf_counter() - started)
