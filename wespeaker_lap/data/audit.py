"""Look at every recording before hours of computing: durations, and rejects with their reasons."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import AudioError, AudioInfo, read_audio, read_info
from wespeaker_lap.io.riff import refuse_cut_wav
from wespeaker_lap.io.table import invert, name_some, read_lines, write_table, write_text

SILENCE_PEAK = 1e-4  # -80 dBFS: below it a recording holds nothing but rounding noise
MAX_PEAK = 1e4  # of full scale: beyond it are no samples, but bytes that were taken for floats


@dataclass(frozen=True)
class Finding:
    """One recording: its seconds, or the reason why it cannot be used; what was converted."""

    seconds: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What an audit found: kept utterances, rejects (utterance -> reason), counts of notes."""

    seconds: dict[str, float]
    rejects: dict[str, str]
    notes: dict[str, int]
    singletons: list[str]

    def lines(self) -> list[str]:
        """The findings as lines for a person."""
        hours = sum(self.seconds.values()) / 3600
        out = [f"{len(self.seconds)} utterances, {hours:.2f} h; {len(self.rejects)} rejected"]
        for reason, count in Counter(r.split(" (")[0] for r in self.rejects.values()).items():
            out.append(f"rejected: {count} x {reason}")
        out += [f"note: {count} x {note}" for note, count in sorted(self.notes.items())]
        if self.singletons:
            out.append(f"note: {len(self.singletons)} speakers with a single utterance, "
                       f"so without a target trial ({name_some(self.singletons, 5)})")
        return out


def inspect_recording(path: str, sample_rate: int, min_seconds: float) -> Finding:
    """Decode one recording and judge it.

    Args:
        path: the audio file.
        sample_rate: samples per second that the encoder wants.
        min_seconds: anything shorter is rejected (shorter than one encoder window, say).
    """
    try:
        info = read_info(path)
        refuse_cut_wav(path)
        samples = read_audio(path, sample_rate)
    except AudioError as error:
        return Finding(reason=str(error).removeprefix(f"{path}: "))
    return judge_samples(samples, info, sample_rate, min_seconds)


def judge_samples(samples: np.ndarray, info: AudioInfo, sample_rate: int,
                  min_seconds: float) -> Finding:
    """Judge a decoded recording.

    Args:
        samples: (S,) at `sample_rate`.
        info: of the file they come from.
        sample_rate, min_seconds: as `inspect_recording`.
    """
    seconds = len(samples) / sample_rate
    if seconds < min_seconds:
        return Finding(reason=f"too short ({seconds:.3f} s, want at least {min_seconds} s)")
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        return Finding(reason="silent (no sample above -80 dBFS)")
    if peak > MAX_PEAK:
        return Finding(reason=describe_peak(peak))
    notes = []
    if info.sample_rate != sample_rate:
        notes.append(f"resampled from {info.sample_rate} Hz")
    if info.num_channels > 1:
        notes.append(f"{info.num_channels} channels averaged to one")
    return Finding(seconds=seconds, notes=tuple(notes))


def describe_peak(peak: float) -> str:
    """Why a recording whose peak is above `MAX_PEAK` cannot be used.

    >>> describe_peak(1e30)
    'far too loud (its peak is 1e+30 times full scale; make the file again)'
    """
    return f"far too loud (its peak is {peak:.3g} times full scale; make the file again)"


def audit_data_dir(path: str | Path, sample_rate: int = 16000, min_seconds: float = 0.1,
                   max_reject_share: float = 0.05, num_jobs: int = 1) -> Audit:
    """Decode every recording of a data directory; write utt2dur, move rejects to rejects.tsv.

    The tables are rewritten without the rejected utterances. A second audit starts from what the
    first one kept, and its rejects.tsv keeps the earlier lines.

    Args:
        path: the data directory.
        sample_rate: samples per second that the encoder wants; other rates are noted.
        min_seconds: shorter recordings are rejected.
        max_reject_share: more rejects than this share is an error: something is wrong with all.
        num_jobs: processes.

    Raises:
        ValueError: too many rejects (the list is written all the same), or a broken table.
    """
    data = load_data_dir(path, with_durations=False)
    utts = sorted(data.wavs)
    inspect = partial(inspect_recording, sample_rate=sample_rate, min_seconds=min_seconds)
    findings = dict(zip(utts, _map(inspect, [data.wavs[u] for u in utts], num_jobs, data.path),
                        strict=True))
    rejects = {utt: f.reason for utt, f in findings.items() if f.reason}
    kept = {utt: f.seconds for utt, f in findings.items() if not f.reason}
    _write_rejects(data.path / "rejects.tsv", data.wavs, rejects)
    if len(rejects) > max_reject_share * len(utts):
        raise ValueError(f"{data.path}: {len(rejects)} of {len(utts)} recordings cannot be used, "
                         f"more than {max_reject_share:.0%}; see {data.path}/rejects.tsv, mend "
                         f"them or raise --max_reject_share. Nothing else was changed")
    if rejects:
        write_data_dir(data.path, {u: data.wavs[u] for u in kept},
                       {u: data.utt2spk[u] for u in kept}, data.spk2gender)
    write_table(data.path / "utt2dur", {u: f"{s:.4f}" for u, s in kept.items()})
    notes = Counter(note for f in findings.values() for note in f.notes)
    utt2spk = {u: data.utt2spk[u] for u in kept}
    singletons = [spk for spk, own in invert(utt2spk).items() if len(own) == 1]
    return Audit(kept, rejects, dict(notes), singletons)


def _map(inspect, paths: list[str], num_jobs: int, title: Path) -> list[Finding]:
    progress = partial(tqdm, total=len(paths), desc=f"audit {title.name}", unit="utt", disable=None)
    if num_jobs <= 1:
        return list(progress(map(inspect, paths)))
    with open_pool(num_jobs) as pool:
        return list(progress(pool.imap(inspect, paths, chunksize=16)))


def _write_rejects(path: Path, wavs: dict[str, str], rejects: dict[str, str]) -> None:
    """Write `utterance<TAB>file<TAB>reason` lines; keep those of utterances no longer in wav.scp,
    which an earlier audit took out."""
    lines = {utt: f"{utt}\t{wavs[utt]}\t{reason}" for utt, reason in rejects.items()}
    if path.is_file():
        for line in read_lines(path):
            utt = line.split("\t", 1)[0]
            if utt not in wavs:
                lines[utt] = line
    if lines:
        write_text(path, "".join(f"{lines[utt]}\n" for utt in sorted(lines)))
    else:
        path.unlink(missing_ok=True)
