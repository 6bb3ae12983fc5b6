"""The page of a layer probe, and the verb that makes it."""

import json

import pytest
from checks import assert_refused
from matplotlib.image import imread
from tiny import write_voices

from wespeaker_lap.data.trials import make_trials, write_trials
from wespeaker_lap.engine.probe import Probe
from wespeaker_lap.io.table import read_table, write_table
from wespeaker_lap.score.probe import LayerRow
from wespeaker_lap.share.layers import format_table, write_layers

ENCODER = {"encoder": "my_encoder", "num_layers": 2, "dim": 4, "last_state": "after_norm"}
SIZE = {"set": "mine", "num_speakers": 1234, "num_utts": 5000, "hours": 2.5}
FACTS = {"train": SIZE, "test": {**SIZE, "set": "other"}, "left_out": ["ann", "bob"],
         "trials": "a given list", "num_trials": 4000, "num_target": 2000,
         "trials_sha256": "f" * 64, "shrinkage": 0.1, "seed": 5, "precision": "bfloat16"}
ROWS = [LayerRow(0, 12.5, (11.0, 14.0), 8), LayerRow(1, 7.251, (6.5, 8.0), 6),
        LayerRow(None, 6.0, (5.0, 7.0), None)]


def test_page_and_json(tmp_path):
    assert write_layers(tmp_path / "out", Probe(ROWS, ENCODER, FACTS)).name == "layers.md"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "layers.json", "layers.md", "layers.png"]
    page = (tmp_path / "out" / "layers.md").read_text()
    for line in ["# Layers of my_encoder", "- Precision of the encoder: bfloat16",
                 "- Encoder: my_encoder (num_layers 2, dim 4, last_state after_norm)",
                 "- Training speakers: 1,234 of mine, 5,000 utterances, 2.50 h",
                 "- Left out for having one utterance: ann, bob",
                 f"- Trials: 4,000 (2,000 target), a given list, SHA-256 `{'f' * 64}`",
                 "- LDA: shrinkage 0.1", "- Seed: 5", "- Interval: 1000 speaker resamples",
                 "| 0 | 12.50 | [11.00, 14.00] |", "| **1** | **7.25** | [6.50, 8.00] |",
                 "| mean of all layers' scores | 6.00 | [5.00, 7.00] |",
                 "Layer 1: 2 of its 8 numbers are the same for everybody and left out.",
                 "![EER of every layer](layers.png)"]:
        assert page.splitlines().count(line) == 1, line
    facts = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert facts["rows"][1] == {"layer": 1, "eer": 7.251, "eer_ci": [6.5, 8.0], "num_dims": 6}
    assert FACTS.items() <= facts.items() and facts["encoder"] == ENCODER
    assert "scikit-learn" in facts["versions"]
    assert imread(tmp_path / "out" / "layers.png").shape[:2] == (540, 960)


def test_one_layer():
    assert format_table(ROWS[:1]).splitlines()[2:] == ["| **0** | **12.50** | [11.00, 14.00] |"]


@pytest.fixture
def sets(lap, tmp_path):
    """`train` of six speakers and `test` of three."""
    for name, speakers in (("train", "abcdef"), ("test", "xyz")):
        assert lap("audit-data", write_voices(tmp_path / name, speakers, 3)).code == 0
    return tmp_path


def test_the_verb(lap, sets):
    utt2spk = read_table(sets / "test" / "utt2spk")
    write_trials(sets / "list.kaldi", make_trials(utt2spk))
    done = lap("probe-layers", "wavlm_tiny", sets / "train", "--out", sets / "out", "--test_data",
               sets / "test", "--trials", sets / "list.kaldi", "--last_state", "before_norm",
               "--device", "cpu", "--precision", "float32", "--max_utts", "2", "--seed", "3")
    assert done.code == 0, done.err
    assert done.out in (sets / "out" / "layers.md").read_text()
    assert len(done.out.splitlines()) == 2 + 7 + 1
    facts = json.loads((sets / "out" / "layers.json").read_text())
    assert (facts["encoder"]["last_state"], facts["precision"]) == ("before_norm", "float32")
    assert (facts["train"]["num_utts"], facts["test"]["num_utts"]) == (12, 9)
    assert (facts["trials"], facts["num_trials"], facts["seed"]) == ("a given list", 18, 3)


def test_the_verb_for_filter_banks_splits_a_set(lap, sets):
    write_table(sets / "train" / "spk2gender", dict.fromkeys("abcdef", "f"))
    done = lap("probe-layers", "fbank", sets / "train", "--out", sets / "out", "--device", "cpu")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 3
    facts = json.loads((sets / "out" / "layers.json").read_text())
    assert (facts["train"]["num_speakers"], facts["test"]["num_speakers"]) == (3, 3)
    assert "of the same gender" in facts["trials"]


@pytest.mark.parametrize(("options", "message"), [
    (("--test_data", "train"), "6 test speakers are training speakers in train too: a, b, c"),
    (("--trials", "list"), "list: no such file"),
    (("--max_utts", "1"), "max_utts is 1"),
    (("--precision", "fp8"), "unknown precision 'fp8'; choose auto, float32, bf16"),
    (("--shrinkage", "2"), "want a shrinkage from 0 to 1, got 2.0"),
    (("--device", "nowhere"), "device 'nowhere' cannot be used here"),
])
def test_the_verb_refuses_in_one_line(lap, sets, monkeypatch, options, message):
    monkeypatch.chdir(sets)
    assert_refused(lap("probe-layers", "wavlm_tiny", "train", "--out", "out", *options), message)
    assert not (sets / "out").exists()


def test_the_verb_names_a_wrong_encoder_or_state(lap, sets):
    call = (sets / "train", "--out", sets / "out", "--device", "cpu")
    assert_refused(lap("probe-layers", "wavlm_tyni", *call), "unknown encoder 'wavlm_tyni'")
    done = lap("probe-layers", "wavlm_tiny", *call, "--last_state", "raw")
    assert done.code == 1
    assert "last_state: Input should be 'after_norm' or 'before_norm'" in done.err
