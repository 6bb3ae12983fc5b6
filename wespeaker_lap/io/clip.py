"""A few seconds of a recording as a file in memory, small enough for a web page."""

import base64
import io
from pathlib import Path

import soundfile

from wespeaker_lap.io.audio import read_audio

SAMPLE_RATE = 16000
# MP3 plays in every browser; libsndfile before 1.1 cannot write it.
KINDS = {"MP3": "audio/mpeg", "WAV": "audio/wav"}


def read_clip(path: str | Path, max_seconds: float = 4.0) -> str:
    """Read the middle of a recording as a data URI for the `src` of an `<audio>`.

    Args:
        path: the audio file.
        max_seconds: of the clip; a recording has often silence at both ends.

    Returns:
        `data:audio/mpeg;base64,…`, mono at 16 kHz; wav where libsndfile cannot write MP3.

    Raises:
        AudioError: as `audio.read_audio`.
    """
    samples = read_audio(path, SAMPLE_RATE)
    wanted = min(len(samples), round(max_seconds * SAMPLE_RATE))
    start = (len(samples) - wanted) // 2
    kind = next(kind for kind in KINDS if kind in soundfile.available_formats())
    file = io.BytesIO()
    soundfile.write(file, samples[start:start + wanted], SAMPLE_RATE, format=kind)
    return f"data:{KINDS[kind]};base64,{base64.b64encode(file.getvalue()).decode()}"
