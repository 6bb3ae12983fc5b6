"""Convert recordings that libsndfile does not read (m4a) to 16 kHz wav with ffmpeg."""

import shutil
import subprocess
from collections.abc import Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from wespeaker_lap.io.audio import AudioError, read_info
from wespeaker_lap.io.table import replacing


def find_ffmpeg() -> str:
    """Find ffmpeg: the one on PATH, or the one that the package imageio-ffmpeg brings.

    Returns:
        The path of the program.

    Raises:
        FileNotFoundError: there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg  # an extra: only m4a corpora need it
        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise FileNotFoundError("m4a files need ffmpeg, which is not on PATH; install ffmpeg, or "
                                "`pip install imageio-ffmpeg`, which brings one") from error


def convert_file(source: Path, target: Path, ffmpeg: str, sample_rate: int = 16000) -> str:
    """Convert a recording to 16-bit mono wav, unless the target is there already.

    Args:
        source: any recording ffmpeg reads.
        target: the wav; it appears when it is whole.
        ffmpeg: the program.
        sample_rate: of the wav.

    Returns:
        An empty string, or why it failed: ffmpeg's last line.
    """
    if target.is_file():
        return ""
    try:
        with replacing(target) as aside:
            # -xerror: a damaged file is an error, not a shorter recording.
            done = subprocess.run(
                [ffmpeg, "-nostdin", "-v", "error", "-xerror", "-threads", "1", "-y",
                 "-i", str(source), "-vn", "-ac", "1", "-ar", str(sample_rate),
                 "-c:a", "pcm_s16le", "-bitexact", "-f", "wav", str(aside)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, errors="replace", check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise AudioError(lines[-1])
            read_info(aside)
    except AudioError as error:
        return " ".join(str(error).split())
    return ""


def convert_all(sources: Mapping[str, Path], wav_dir: Path,
                num_jobs: int) -> tuple[dict[str, Path], dict[str, str]]:
    """Convert many recordings at a time; those that are converted already cost nothing.

    Args:
        sources: utterance id, which is the wav's path under `wav_dir`, -> recording.
        wav_dir: the folder of the wavs.
        num_jobs: how many run at a time.

    Returns:
        utterance -> wav for those that are fine, utterance -> reason for those that failed, both
        in the order of `sources`.

    Raises:
        FileNotFoundError: there is no ffmpeg.
        OSError: a wav cannot be written (a full disk, say).
    """
    if not sources:
        return {}, {}
    ffmpeg = find_ffmpeg()

    def convert(utt: str) -> tuple[str, str]:
        return utt, convert_file(sources[utt], wav_dir / utt, ffmpeg)

    reasons = {}
    with ThreadPool(num_jobs) as pool:
        for utt, reason in tqdm(pool.imap_unordered(convert, sources), total=len(sources),
                                desc="convert", unit="file", disable=None):
            reasons[utt] = reason
    wavs = {utt: wav_dir / utt for utt in sources if not reasons[utt]}
    return wavs, {utt: reasons[utt] for utt in sources if reasons[utt]}
