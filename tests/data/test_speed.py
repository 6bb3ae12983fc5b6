"""Speed copies: a tone gets higher, speakers get new names, nothing is written twice."""

import numpy as np
import pytest

from wespeaker_lap.data.augment import change_speed
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.speed import add_speed_copies
from wespeaker_lap.io.audio import read_audio, write_wav

RATE = 16000


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype("f4")


def loudest(samples: np.ndarray) -> float:
    """Frequency of the highest peak of the spectrum, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_faster_is_shorter_and_higher(factor: float) -> None:
    changed = change_speed(tone(1000), factor)
    assert len(changed) == pytest.approx(RATE / factor, abs=2)
    assert loudest(changed) == pytest.approx(1000 * factor, abs=2)


def test_copies_are_new_speakers(tmp_path) -> None:
    wavs = {utt: str(tmp_path / f"{utt}.wav") for utt in ("a1", "b1")}
    for utt, path in wavs.items():
        write_wav(path, tone(400 if utt == "a1" else 600))
    write_data_dir(tmp_path / "train", wavs, {"a1": "a", "b1": "b"}, {"a": "m", "b": "f"})
    add_speed_copies(load_data_dir(tmp_path / "train"), tmp_path / "train_sp", tmp_path / "wav",
                     (0.9, 1.1), num_jobs=2)
    made = load_data_dir(tmp_path / "train_sp")
    assert made.utt2spk == {"a1": "a", "b1": "b", "sp0.9-a1": "sp0.9-a", "sp0.9-b1": "sp0.9-b",
                            "sp1.1-a1": "sp1.1-a", "sp1.1-b1": "sp1.1-b"}
    assert made.spk2gender["sp1.1-b"] == "f"
    assert loudest(read_audio(made.wavs["sp1.1-b1"])) == pytest.approx(660, abs=2)
    before = (tmp_path / "wav" / "sp1.1" / "b1.wav").stat().st_mtime_ns
    add_speed_copies(load_data_dir(tmp_path / "train"), tmp_path / "train_sp", tmp_path / "wav",
                     (0.9, 1.1))
    assert (tmp_path / "wav" / "sp1.1" / "b1.wav").stat().st_mtime_ns == before


@pytest.mark.parametrize("factor", [0.0, 1.0, -1.1])
def test_senseless_factors_are_refused(tmp_path, factor: float) -> None:
    write_data_dir(tmp_path / "train", {"a": "a.wav"}, {"a": "a"})
    with pytest.raises(ValueError, match="speed factors"):
        add_speed_copies(load_data_dir(tmp_path / "train"), tmp_path / "sp", tmp_path, (factor,))
