"""Packs: the samples of the files, pieces of them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.packed import PackedAudio, pack_audio
from wespeaker_lap.io.audio import AudioError

RATE = 16000
STEP = 1 / 32767  # of the packed samples


def make_set(path: Path, sounds: dict[str, np.ndarray], subtype: str = "PCM_16") -> Path:
    """An audited set of sounds."""
    wavs = {utt: str(path / "wav" / f"{utt}.wav") for utt in sounds}
    (path / "wav").mkdir(parents=True, exist_ok=True)
    for utt, samples in sounds.items():
        soundfile.write(wavs[utt], samples, RATE, subtype=subtype)
    write_data_dir(path, wavs, {utt: utt for utt in sounds})
    audit_data_dir(path, min_seconds=0)
    return path


def noise(num_samples: int, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).clip(-1, 1)


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Two sets, from 1 sample to 3 s, from almost silent to full scale."""
    return [make_set(tmp_path / "a", {"é-2": noise(5000), "b": noise(48000, 0.4, 1)}),
            make_set(tmp_path / "z", {"click": np.array([0.5]), "hiss": noise(1600, 3e-4, 2)})]


def pack(sets: list[Path], out: Path, num_jobs: int = 1) -> PackedAudio:
    pack_audio([load_data_dir(path) for path in sets], out, num_jobs)
    return PackedAudio(out)


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_the_samples_are_those_of_the_files(sets, tmp_path, num_jobs):
    packed = pack(sets, tmp_path / "pack", num_jobs)
    assert packed.utts == ["b", "é-2", "click", "hiss"]  # a set as it is sorted, then the next
    assert packed.lengths.tolist() == [48000, 5000, 1, 1600]
    assert (len(packed), packed.sample_rate) == (4, RATE)
    wavs = {**load_data_dir(sets[0]).wavs, **load_data_dir(sets[1]).wavs}
    for number, utt in enumerate(packed.utts):
        expected, _ = soundfile.read(wavs[utt], dtype="float32")
        found = packed.read(number)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= STEP  # half of it rounds, 1/32768 is not 1/32767
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == [
        "audio.int16", "audio.json", "index.tsv"]


def test_a_piece_is_that_of_the_whole(sets, tmp_path):
    packed = pack(sets, tmp_path / "pack")
    whole = packed.read(1)
    for start, num_samples in ((0, 1), (100, 300), (4999, 1), (0, 5000)):
        np.testing.assert_array_equal(packed.read(1, start, num_samples),
                                      whole[start:start + num_samples])
    for start, num_samples in ((-1, 10), (0, 0), (4990, 11), (5000, 1), (5000, None)):
        with pytest.raises(ValueError, match=r"é-2: want samples .* of 5000"):
            packed.read(1, start, num_samples)


def test_another_rate_and_more_channels(tmp_path):
    time = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * time)
    make_set(tmp_path / "a", {"x": tone[:800]})
    soundfile.write(tmp_path / "a" / "wav" / "x.wav", np.stack([0.5 * tone, 0.1 * tone], 1), 8000)
    packed = pack([tmp_path / "a"], tmp_path / "pack")
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(packed.read(0) - expected)[800:-800].max() < 1e-3  # not at the edges


def test_what_is_beyond_full_scale_is_clipped(tmp_path):
    make_set(tmp_path / "a", {"loud": np.array([0.5, 1.7, -3.0, -0.5] * 10)}, "FLOAT")
    packed = pack([tmp_path / "a"], tmp_path / "pack")
    np.testing.assert_allclose(packed.read(0)[:4], [0.5, 1, -1, -0.5], atol=STEP)


def test_a_pack_is_written_once(sets, tmp_path):
    pack(sets, tmp_path / "pack")
    files = list((tmp_path / "pack").iterdir())
    before = {path: path.stat().st_mtime_ns for path in files}
    for path in sets:  # what is there already needs no recordings
        for wav in (path / "wav").iterdir():
            wav.unlink()
    pack(sets, tmp_path / "pack")
    assert {path: path.stat().st_mtime_ns for path in files} == before


@pytest.mark.parametrize("change", ["fewer", "other lengths", "other order"])
def test_a_pack_of_other_data_stays_as_it_is(sets, tmp_path, change):
    pack(sets, tmp_path / "pack")
    before = (tmp_path / "pack" / "audio.int16").read_bytes()
    if change == "other lengths":
        make_set(sets[0], {"é-2": noise(6000), "b": noise(48000, 0.4, 1)})
    changed = {"fewer": sets[:1], "other order": sets[::-1]}.get(change, sets)
    with pytest.raises(ValueError, match="pack: holds a pack of other data; choose another fold"):
        pack(changed, tmp_path / "pack")
    assert (tmp_path / "pack" / "audio.int16").read_bytes() == before


def test_what_cannot_be_packed_leaves_no_pack(sets, tmp_path):
    with pytest.raises(ValueError, match=r"a: utterance 'b' is in another set too; give"):
        pack([sets[0], sets[0]], tmp_path / "pack")
    with pytest.raises(ValueError, match="there are no recordings to pack"):
        pack([], tmp_path / "pack")
    (sets[1] / "wav" / "hiss.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"hiss\.wav: not readable as audio"):
        pack(sets, tmp_path / "pack")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "pack" in path.parts]
    with pytest.raises(FileNotFoundError, match=r"pack/audio\.json: no such file; run 'wespeaker-"):
        PackedAudio(tmp_path / "pack")


def test_packing_that_was_killed_begins_again(sets, tmp_path):
    whole = pack(sets, tmp_path / "pack")
    samples = np.array(whole.samples)
    (tmp_path / "pack" / "audio.json").unlink()  # which comes last
    (tmp_path / "pack" / "audio.int16").write_bytes(b"half")
    (tmp_path / "pack" / ".audio.int16.tmp").write_bytes(b"half")
    np.testing.assert_array_equal(pack(sets, tmp_path / "pack").samples, samples)
    assert not (tmp_path / "pack" / ".audio.int16.tmp").exists()


@pytest.mark.parametrize(("name", "content", "message"), [
    ("audio.int16", b"12", r"audio\.int16: not as long as its index says; remove the folder"),
    ("audio.int16", None, r"pack: no whole pack \(.*No such file.*; remove the folder"),
    ("index.tsv", b"", r"audio\.int16: not as long as its index says"),
    ("index.tsv", b"b\t0\n", r"pack: no whole pack \("),
    ("index.tsv", b"b\t0\tmany\n", r"pack: no whole pack \(.*'many'"),
    ("index.tsv", None, r"pack: no whole pack \(.*index\.tsv: no such file"),
    ("audio.json", b"{", r"audio\.json: not JSON \(.*; remove the folder and run 'wespeaker-lap"),
    ("audio.json", b"{}", r"pack: no whole pack \('sample_rate'\)"),
])
def test_a_broken_pack_is_told(sets, tmp_path, name, content, message):
    pack(sets, tmp_path / "pack")
    path = tmp_path / "pack" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        PackedAudio(tmp_path / "pack")


def test_the_hash_is_that_of_the_sets(sets, tmp_path):
    first, second = (pack([path], tmp_path / f"pack-{path.name}").data_hash for path in sets)
    assert pack(sets, tmp_path / "pack").data_hash == f"{first} {second}" and first != second
    facts = json.loads((tmp_path / "pack" / "audio.json").read_text())
    assert facts == {"sample_rate": RATE, "data_hash": f"{first} {second}"}
