"""The page on layer attention, its numbers, and the verb that makes it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import assert_refused
from matplotlib.image import imread

from wespeaker_lap.build import build_net
from wespeaker_lap.config import dump_config, load_config
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.engine.checkpoint import AVERAGED, save_weights
from wespeaker_lap.engine.embed import load_net
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.facts import load_facts, save_facts
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter
from wespeaker_lap.share.attention_page import FIXED

FEATURES = {"encoder": "made_up", "num_layers": 3, "dim": 4, "sample_rate": 16000,
            "frame_shift": 320, "layers": [0, 5, 9]}
NUM_FRAMES = {"a/1": 30, "a/2": 20, "b/1": 50}


def write_system(root: Path, *overrides: str, plant=None, **features) -> tuple[Path, ...]:
    """An untrained system, a set without recordings and its features.

    Args:
        plant: changes the network's weights.
        features: other than `FEATURES`.
    """
    config = load_config(overrides=overrides)
    identity = {**FEATURES, "codec": "float16", **features}
    net = build_net(config.model, identity["num_layers"], identity["dim"])
    if plant:
        with torch.no_grad():
            plant(net.layer_pool)
    exp_dir = root / "exp" / "mine"
    (exp_dir / "models").mkdir(parents=True)
    (exp_dir / "config.yaml").write_text(dump_config(config))
    save_facts(exp_dir, identity, ["a", "b"], "train", 0)
    save_weights(exp_dir / "models" / f"{AVERAGED}.safetensors", net, torch.nn.Identity())
    rng = np.random.default_rng(0)
    shape = (identity["num_layers"], identity["dim"])
    with FeatureWriter(root / "feats", identity, identity["codec"]) as writer:
        for utt, count in NUM_FRAMES.items():
            writer.write(utt, rng.normal(size=(count, *shape)).astype(np.float32))
    write_data_dir(root / "set", {utt: f"{utt}.wav" for utt in NUM_FRAMES},
                   {utt: utt[0] for utt in NUM_FRAMES})
    return exp_dir, root / "set", "--feats", root / "feats", "--out", root / "out"


def read_json(root: Path) -> dict:
    return json.loads((root / "out" / "attention.json").read_text())


def plant_weights(pool) -> None:
    pool.layer_logits.copy_(torch.tensor([0.06, 0.55, 0.39]).log())


def test_a_weighted_sum(lap, tmp_path):
    done = lap("attention", *write_system(tmp_path, "model.layer_pool.name=weighted_sum",
                                          plant=plant_weights), "--utt", "b/1")
    assert done.code == 0, done.err
    page = (tmp_path / "out" / "attention.md").read_text()
    assert done.out == page
    second = 50 * 2 * 4 * 2  # 2 layers of 4 halves, 50 frames; the header adds little
    for line in ["# What mine looks at in set (weighted_sum)", "| Layer | Scores % | 95 % |",
                 "| 0 | 6.0 | - |", "| 5 | **55.0** | - |", "| 9 | 39.0 | - |",
                 "- Measured: 3 utterances of 2 speakers, 100 frames",
                 "- Features: stored features, codec float16", "## b/1", FIXED.strip()]:
        assert page.splitlines().count(line) == 1, line
    assert "| scores | `features.layers=[5,9]` | 94.0 |" in page
    assert "This is a suggestion that has to be verified" in page
    found, = read_json(tmp_path)["suggestions"]
    assert found["layers"] == [5, 9] and found["kept"]["layers"] == pytest.approx(0.94, abs=1e-6)
    assert found["bytes_per_second"] == pytest.approx(second, rel=0.01)
    assert found["saved"] == pytest.approx(1 / 3, abs=0.01)
    assert "the heat map of b/1 is without its level" in done.log
    numbers = np.load(tmp_path / "out" / "utterance-1.npz", allow_pickle=False)
    assert set(numbers) == {"layers", "seconds", "layers_mass"}
    np.testing.assert_allclose(numbers["layers_mass"], [[0.06, 0.55, 0.39]] * 50, rtol=1e-5)
    assert numbers["layers"].tolist() == [0, 5, 9]
    np.testing.assert_allclose(numbers["seconds"][[0, 1, 49]], [0, 0.02, 0.98])


def test_the_suggestion_can_be_used(lap, tmp_path):
    lap("attention", *write_system(tmp_path, "model.layer_pool.name=weighted_sum",
                                   plant=plant_weights))
    page = (tmp_path / "out" / "attention.md").read_text()
    setting = page.split("`features.layers")[1].split("`")[0]
    assert load_config(overrides=[f"features.layers{setting}"]).features.layers == (5, 9)


def test_keys_and_values_of_mhfa(lap, tmp_path):
    def plant(pool):
        pool.keys.layer_logits.copy_(torch.tensor([0.9, 0.08, 0.02]).log())
        pool.values.layer_logits.copy_(torch.tensor([0.01, 0.04, 0.95]).log())

    done = lap("attention", *write_system(tmp_path, "model.layer_pool.name=weighted_sum",
                                          "model.time_pool.name=mhfa", plant=plant), "--keep", 0.85)
    assert done.code == 0, done.err
    assert "| Layer | Keys: scores % | 95 % | Values: scores % | 95 % |" in done.out
    assert "| 0 | **90.0** | - | 1.0 | - |" in done.out
    assert "`features.layers=[0,9]` | keys 92.0, values 96.0 |" in done.out
    assert "(weighted_sum, for keys and values of mhfa)" in done.out


def test_lap(lap, tmp_path):
    """A layer with large values and a small score wins; the other way round it loses."""
    def plant(pool):
        for parameter in (pool.squeeze_weight, pool.squeeze_bias, pool.expand_weight,
                          pool.in_linear.weight):
            parameter.zero_()
        pool.in_linear.weight.copy_(1e-3 * torch.eye(4))
        pool.in_linear.bias.fill_(1.0)  # nearly ones everywhere, so the largest score wins
        pool.expand_bias.copy_(torch.tensor([0.2, 0.7, 0.5]).logit() / 2)

    done = lap("attention", *write_system(tmp_path, "model.layer_pool.num_heads=2", plant=plant),
               "--keep", "0.8", "--seed", "4")
    assert done.code == 0, done.err
    assert "| 0 | 14.3 | [14.3, 14.3] | 0.0 | [0.0, 0.0] |" in done.out
    assert "| 5 | **50.0** | [50.0, 50.0] | **100.0** | [100.0, 100.0] |" in done.out
    assert "| scores | `features.layers=[5,9]` | 85.7 |" in done.out
    assert "| values won | `features.layers=[5]` | 100.0 |" in done.out
    facts = read_json(tmp_path)
    assert (facts["seed"], facts["keep"], facts["ci_resamples"]) == (4, 0.8, 1000)
    assert facts["shares"]["layers"][1]["wins_ci"] == [1, 1]


def test_when_no_layer_can_be_spared(lap, tmp_path):
    done = lap("attention", *write_system(tmp_path, "model.layer_pool.name=weighted_sum"))
    assert "`features.layers=[0,5,9]` | 100.0 |" in done.out
    assert "No layer can be spared for that; a lower `--keep` shows" in done.out
    assert "has to be verified" not in done.out


def test_unipool_gets_a_layer_to_leave_out(lap, tmp_path):
    done = lap("attention", *write_system(
        tmp_path, "model.layer_pool.name=unipool", "model.layer_pool.channels=2",
        "model.layer_pool.out_dim=8"), "--keep", "0.01")
    assert done.code == 0, done.err
    assert "| 0 | 0.0 | [0.0, 0.0] | 0.0 | [0.0, 0.0] |" in done.out
    for found in read_json(tmp_path)["suggestions"]:
        assert len(found["layers"]) == 2 and found["layers"][0] == 0
    assert "so the suggestion has one more layer to leave out" in " ".join(done.out.split())


def test_recordings_give_what_stored_features_give(lap, tiny_system, tmp_path):
    data = load_data_dir(tiny_system.data("test"))
    utt = sorted(data.wavs)[3]
    tables = []
    for name, options in (("stored", ("--feats", tiny_system.feats("test"))), ("waves", ())):
        done = lap("attention", tiny_system.exp_dir, data.path, *options, "--out",
                   tmp_path / name, "--utt", utt, "--device", "cpu")
        assert done.code == 0, done.err
        facts = json.loads((tmp_path / name / "attention.json").read_text())
        tables.append([[row["mass"], *row["mass_ci"], row["wins"], *row["wins_ci"]]
                       for row in facts["shares"]["layers"]])
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            "attention.json", "attention.md", "attention.png", "utterance-1.npz",
            "utterance-1.png"]
        assert imread(tmp_path / name / "utterance-1.png").shape[1] == 1200
        assert imread(tmp_path / name / "attention.png").std() > 0.01
    np.testing.assert_allclose(*tables, atol=2e-3)
    assert "- Features: recordings of test, codec float16" in done.out
    numbers = np.load(tmp_path / "waves" / "utterance-1.npz")
    check_against_the_network(tiny_system, utt, numbers)


def check_against_the_network(system, utt, numbers):
    facts, store = load_facts(system.exp_dir), FeatureStore(system.feats("test"))
    net = load_net(system.exp_dir, load_config(system.exp_dir / "config.yaml"), facts, AVERAGED)
    with torch.no_grad():
        _, scores = net.layer_pool(torch.from_numpy(store[utt])[None], return_scores=True)
    np.testing.assert_allclose(numbers["layers_mass"], scores[0].mean(dim=1), atol=2e-3)
    np.testing.assert_allclose(numbers["layers_wins"].sum(axis=1), 1)
    assert len(numbers["level_db"]) == store.num_frames(utt)
    assert -60 < numbers["level_db"].mean() < 0


def test_the_level_is_that_of_the_recording(lap, tmp_path):
    given = write_system(tmp_path, "model.layer_pool.name=weighted_sum")
    wave = np.concatenate([np.full(320 * 20, 0.1), np.full(320 * 30, 0.01)])
    write_wav(tmp_path / "b.wav", wave, 16000)
    utts = {utt: str(tmp_path / "b.wav") for utt in NUM_FRAMES}
    write_data_dir(tmp_path / "set", utts, {utt: utt[0] for utt in utts})
    assert lap("attention", *given, "--utt", "b/1", "--utt", "a/1").code == 0
    level = np.load(tmp_path / "out" / "utterance-1.npz")["level_db"]
    np.testing.assert_allclose(level, [-20] * 20 + [-40] * 30, atol=0.05)
    assert len(np.load(tmp_path / "out" / "utterance-2.npz")["level_db"]) == 30


def test_max_utts_draws_by_seed(lap, tmp_path):
    given = write_system(tmp_path, "model.layer_pool.num_heads=2")
    counts = set()
    for seed in range(4):
        done = lap("attention", *given, "--max_utts", "1", "--seed", seed)
        facts = read_json(tmp_path)
        assert (facts["num_utts"], facts["num_speakers"]) == (1, 1)
        shown, = facts["maps"]
        assert facts["num_frames"] == NUM_FRAMES[shown]
        assert facts["shares"]["layers"][0]["mass_ci"] is None and "| - |" in done.out
        counts.add(shown)
    assert len(counts) > 1


@pytest.mark.parametrize(("options", "message"), [
    (("--utt", "c/9", "--utt", "a/1"), "set: no utterances c/9"),
    (("--max_utts", "0"), "want max_utts 1 or more, got 0"),
    (("--keep", "0"), "want keep above 0 and up to 1, got 0.0"),
    (("--keep", "90"), "want keep above 0 and up to 1, got 90.0"),
    (("--device", "nowhere"), "device 'nowhere' cannot be used here"),
    (("--feats", "nowhere"), "nowhere/feats.json: no such file"),
])
def test_the_verb_refuses_in_one_line(lap, tmp_path, options, message):
    given = write_system(tmp_path, "model.layer_pool.num_heads=2")
    assert_refused(lap("attention", *given, *options), message)
    assert not (tmp_path / "out").exists()


def test_systems_without_layers_to_choose_from(lap, tmp_path):
    given = write_system(tmp_path / "a", "model.layer_pool.name=single")
    assert_refused(lap("attention", *given), "its layer pool is 'single', which looks at one layer")
    given = write_system(tmp_path / "b", "frontend.name=fbank", "model.layer_pool.num_heads=2",
                         encoder="fbank", num_layers=1, layers="all")
    assert_refused(lap("attention", *given), "trained on fbank features of one layer")
    assert_refused(lap("attention", tmp_path, given[1], "--out", "x"), "is no trained model")


def test_features_that_are_not_the_systems(lap, tmp_path):
    exp_dir, data, *rest = write_system(tmp_path / "a", "model.layer_pool.num_heads=2")
    facts = json.loads((exp_dir / "model.json").read_text())
    facts["features"]["frame_shift"] = 160
    (exp_dir / "model.json").write_text(json.dumps(facts))
    assert_refused(lap("attention", exp_dir, data, *rest), "frame_shift is 320, expected 160")
    exp_dir, data, *rest = write_system(tmp_path / "b", "model.layer_pool.num_heads=2")
    utts = {**dict.fromkeys(NUM_FRAMES, "x.wav"), "c/1": "x.wav"}
    write_data_dir(data, utts, {utt: utt[0] for utt in utts})
    assert_refused(lap("attention", exp_dir, data, *rest), "no features for c/1; run stage 2")


def test_a_recording_that_fails_is_named(lap, tiny_system, tmp_path):
    write_wav(tmp_path / "short.wav", np.ones(100), 16000)
    write_data_dir(tmp_path / "set", {"u": str(tmp_path / "short.wav")}, {"u": "a"})
    done = lap("attention", tiny_system.exp_dir, tmp_path / "set", "--out", tmp_path / "out")
    assert_refused(done, "error: u: ")
