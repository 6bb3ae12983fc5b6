"""Speech to learn from: the sets that are written, and that no test speaker is in any of them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.table import read_table

SCRIPT = (Path(__file__).resolve().parents[2] / "egs" / "ssl_pretrain" / "v1" / "local"
          / "prepare_data.py")
SPEAKERS = {"train": ("0001", "0002", "0005"), "test": ("0003", "0004")}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_ssl_pretrain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_sound(path: Path, seed: int = 0) -> None:
    write_wav(path, 0.1 * np.random.default_rng(seed).standard_normal(4000), 16000)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus in speechocean762's shape: two utterances of each speaker."""
    root = tmp_path / "corpus"
    for part, speakers in SPEAKERS.items():
        utts = {f"{speaker}0{n}": speaker for speaker in speakers for n in (1, 2)}
        for utt in utts:
            write_sound(root / "WAVE" / f"{utt}.wav", int(utt))
        (root / part).mkdir()
        for name, table in {"wav.scp": {utt: f"WAVE/{utt}.wav" for utt in utts}, "utt2spk": utts,
                            "spk2gender": dict.fromkeys(speakers, "f")}.items():
            (root / part / name).write_text("".join(f"{k}\t{v}\n" for k, v in table.items()))
    return root


def plant_folder(folder: Path, utts: str, speakers: str = "", table: str = "utt2spk") -> Path:
    """A folder of unlabelled speech: wav.scp with paths relative to it, perhaps speakers."""
    for utt in utts.split():
        write_sound(folder / "sounds" / f"{utt}.wav")
    (folder / "wav.scp").write_text("".join(f"{u} sounds/{u}.wav\n" for u in utts.split()))
    if speakers:
        (folder / table).write_text(speakers)
    return folder


def list_sets(data: Path) -> set[str]:
    return {path.name for path in data.iterdir()} if data.exists() else set()


def test_the_test_part_is_left_out(script: ModuleType, corpus: Path, tmp_path: Path) -> None:
    assert script.main(["--corpus_dir", str(corpus), "--data", str(tmp_path / "data")]) == 0
    assert list_sets(tmp_path / "data") == {"speechocean762"}
    made = load_data_dir(tmp_path / "data" / "speechocean762")
    assert made.speakers == ["0001", "0002", "0005"]
    assert made.wavs == {utt: str((corpus / "WAVE" / f"{utt}.wav").resolve()) for utt in (
        "000101", "000102", "000201", "000202", "000501", "000502")}
    assert made.spk2gender == {"0001": "f", "0002": "f", "0005": "f"}


def test_no_test_speech_of_the_real_corpus(script: ModuleType, shared: Path,
                                           tmp_path: Path) -> None:
    corpora = shared / "corpora"
    assert script.main(["--corpus_dir", str(corpora / "speechocean762"), "--data", str(tmp_path),
                        "--unlabelled", str(corpora / "unlabelled"),
                        "--noise_scp", str(corpora / "noise_rir" / "noise.scp"),
                        "--rir_scp", str(corpora / "noise_rir" / "rir.scp")]) == 0
    assert list_sets(tmp_path) == {"speechocean762", "unlabelled", "noise", "rir"}
    own, other = (load_data_dir(tmp_path / name) for name in ("speechocean762", "unlabelled"))
    assert (len(own.speakers), len(own.wavs)) == (125, 2500)
    test = corpora / "speechocean762" / "test"
    test_wavs, test_speakers = read_table(test / "wav.scp"), read_table(test / "utt2spk")
    assert len(test_wavs) == 2500 and not own.wavs.keys() & test_wavs.keys()
    assert not set(own.speakers) & set(test_speakers.values())
    stems = {Path(wav).stem for wav in test_wavs.values()}
    assert not stems & {Path(wav).stem for wav in (*own.wavs.values(), *other.wavs.values())}
    # 5,171 with the speaker's hash, 2,280 that are each their own.
    partial = read_table(corpora / "unlabelled" / "utt2spk.partial")
    assert len(other.wavs) == 7451
    assert len(other.speakers) == len(set(partial.values())) + 7451 - len(partial)


def add_to_train(corpus: Path, utt: str, wav: str, speaker: str) -> None:
    for name, value in {"wav.scp": wav, "utt2spk": speaker}.items():
        with open(corpus / "train" / name, "a", encoding="utf-8") as file:
            file.write(f"{utt}\t{value}\n")


@pytest.mark.parametrize(("leak", "message"), [
    (("000301", "WAVE/000101.wav", "0001"), "utterances are in the test part"),
    (("000399", "WAVE/000102.wav", "0003"), "speakers are in the test part"),
    (("000199", "WAVE/000302.wav", "0001"), "recordings of speechocean762 are in the test part"),
    (("000199", "train/../WAVE/000302.wav", "0001"), "recordings of speechocean762 are in"),
])
def test_a_leak_into_the_training_part_is_refused(script, corpus, tmp_path, capsys, leak, message):
    add_to_train(corpus, *leak)
    assert script.main(["--corpus_dir", str(corpus), "--data", str(tmp_path / "data")]) == 1
    told = capsys.readouterr().err
    assert message in told and "000" in told and told.count("\n") == 1
    assert list_sets(tmp_path / "data") == set()


def test_a_leak_through_another_set_is_refused(script, corpus, tmp_path, capsys):
    leaking = plant_folder(tmp_path / "crowd", "x1 x2")
    (leaking / "wav.scp").write_text(f"x1 sounds/x1.wav\nx2 {corpus}/WAVE/000401.wav\n")
    write_data_dir(tmp_path / "voices", {"v": str(corpus / "WAVE" / "000302.wav")}, {"v": "v"})
    for name, option in (("crowd", "--unlabelled"), ("synthetic", "--synthetic_data")):
        folder = leaking if name == "crowd" else tmp_path / "voices"
        assert script.main(["--corpus_dir", str(corpus), "--data", str(tmp_path / "data"), option,
                            str(folder)]) == 1
        assert f"recordings of {name} are in the test part" in capsys.readouterr().err
    assert list_sets(tmp_path / "data") == set()


def test_unlabelled_sets(script: ModuleType, tmp_path: Path) -> None:
    folders = [plant_folder(tmp_path / "plain", "a b"),
               plant_folder(tmp_path / "known", "c d", "c ann\nd ann\n"),
               plant_folder(tmp_path / "partly", "e f", "e ann\nother bob\n", "utt2spk.partial")]
    assert script.main(["--data", str(tmp_path / "data"), "--unlabelled",
                        *map(str, folders)]) == 0
    made = {name: load_data_dir(tmp_path / "data" / name) for name in ("plain", "known", "partly")}
    assert made["plain"].utt2spk == {"a": "a", "b": "b"}
    assert made["known"].utt2spk == {"c": "ann", "d": "ann"}
    assert made["partly"].utt2spk == {"e": "ann", "f": "f"}
    assert made["partly"].wavs["f"] == str((tmp_path / "partly" / "sounds" / "f.wav").resolve())


def test_noises_responses_and_voices(script: ModuleType, tmp_path: Path) -> None:
    folder = plant_folder(tmp_path / "extra", "n1 n2 r1")
    (folder / "noise.scp").write_text("n1 sounds/n1.wav\nn2 sounds/n2.wav\n")
    (folder / "rir.scp").write_text("r1 sounds/r1.wav\n")
    write_data_dir(tmp_path / "voices", {"v": str(folder / "sounds" / "n1.wav")}, {"v": "s"})
    assert script.main(["--data", str(tmp_path / "data"), "--synthetic_data",
                        str(tmp_path / "voices"), "--noise_scp", str(folder / "noise.scp"),
                        "--rir_scp", str(folder / "rir.scp")]) == 0
    made = {name: load_data_dir(tmp_path / "data" / name).utt2spk
            for name in ("noise", "rir", "synthetic")}
    assert made == {"noise": {"n1": "n1", "n2": "n2"}, "rir": {"r1": "r1"},
                    "synthetic": {"v": "s"}}


def test_copies_at_other_speeds(script: ModuleType, tmp_path: Path) -> None:
    data = tmp_path / "data"
    folders = [str(plant_folder(tmp_path / name, "same")) for name in ("one", "two")]
    assert script.main(["--data", str(data), "--unlabelled", *folders]) == 0
    for name in ("one", "two"):
        audit_data_dir(data / name)
    assert script.main(["--data", str(data), "--copies_of", "one", "two", "--speed_factors", "0.5",
                        "2"]) == 0
    for name in ("one", "two"):  # the same id twice is two files
        made = load_data_dir(data / f"{name}_sp")
        assert made.wavs == {"same": str((tmp_path / name / "sounds" / "same.wav").resolve()),
                             "sp0.5-same": str(data / "wav_speed" / name / "sp0.5" / "same.wav"),
                             "sp2-same": str(data / "wav_speed" / name / "sp2" / "same.wav")}
        audit_data_dir(made.path)
        durations = load_data_dir(made.path).durations
        assert durations == {"same": 0.25, "sp0.5-same": 0.5, "sp2-same": 0.125}


@pytest.mark.parametrize(("wav_scp", "message"), [
    ("a sounds/a.wav\nb sounds/b.wav\n", "wav.scp: 1 of 2 recordings are missing: "),
    ("a\n", "wav.scp:1: expected 'key value'"),
    ("a cat sounds/a.wav |\n", "a pipe, which is never run"),
    ("", "no utterances to write"),
    (None, "wav.scp: no such file"),
])
def test_broken_folders(script, tmp_path, capsys, wav_scp, message):
    folder = plant_folder(tmp_path / "mine", "a")
    (folder / "wav.scp").unlink()
    if wav_scp is not None:
        (folder / "wav.scp").write_text(wav_scp)
    assert script.main(["--data", str(tmp_path / "data"), "--unlabelled", str(folder)]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert list_sets(tmp_path / "data") == set()


@pytest.mark.parametrize("name", ["noise", "rir", "synthetic", "speechocean762", "pack", "x_sp"])
def test_names_that_are_taken(script, tmp_path, capsys, name):
    folder = plant_folder(tmp_path / name, "a")
    assert script.main(["--data", str(tmp_path / "data"), "--unlabelled", str(folder)]) == 1
    assert f"a set cannot be called '{name}'" in capsys.readouterr().err


def test_two_folders_of_one_name(script, tmp_path, capsys):
    folders = [str(plant_folder(tmp_path / name / "wavs", "a")) for name in ("one", "two")]
    assert script.main(["--data", str(tmp_path / "data"), "--unlabelled", *folders]) == 1
    assert "or there are two; rename the folder" in capsys.readouterr().err


def test_a_corpus_that_is_not_there(script, corpus, tmp_path, capsys):
    for path in ("nowhere", corpus):
        if path == corpus:  # without its list of test speech nothing can be left out
            (corpus / "test" / "wav.scp").unlink()
        assert script.main(["--corpus_dir", str(path), "--data", str(tmp_path / "data")]) == 1
        assert "no such file; --corpus_dir must be a copy of" in capsys.readouterr().err
    assert list_sets(tmp_path / "data") == set()
