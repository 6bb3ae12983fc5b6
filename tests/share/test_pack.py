"""A packed system: what is in it, that it gives the same scores, and when it is not made."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import yaml

from wespeaker_lap import load_model
from wespeaker_lap.config import load_config
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.scorefile import read_scores, write_scores
from wespeaker_lap.share import bundle
from wespeaker_lap.share import pack as packing
from wespeaker_lap.share.card import Licences
from wespeaker_lap.share.pack import pack
from wespeaker_lap.share.reproduce import reproduce_scores


@pytest.fixture
def exp_dir(scored, tmp_path):
    """A copy of the scored system, to be changed."""
    return shutil.copytree(scored, tmp_path / "exp" / "lap-é")


@pytest.fixture
def unchecked(monkeypatch):
    """Leave the check in a process of its own out, where something else is looked at."""
    calls = []
    monkeypatch.setattr(packing, "_check", lambda *args: calls.append(args) or "")
    return calls


def copy_of(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copy")


def test_the_same_scores_wherever_it_is_loaded_from(scored, packed, tmp_path, test_wavs):
    bundle.write_tar(packed, tmp_path / "m.tar", "m")
    models = [load_model(source) for source in (scored, packed, tmp_path / "m.tar")]
    for norm, file in (("none", "pairs"), ("asnorm", "train_asnorm3_pairs")):
        trials, scores = read_scores(scored / "scores" / f"{file}.score")
        for n in (0, 17, 35):
            a, b = test_wavs[trials.enroll[n]], test_wavs[trials.test[n]]
            found = [model.verify(a, b, norm=norm) for model in models]
            assert found[0] == found[1] == found[2]
            assert found[0].score == pytest.approx(scores[n], abs=1e-3 * scores.std())
            assert (found[0].decision == "accepted") == (found[0].score >= found[0].threshold)


def test_what_is_in_it(scored, packed):
    names = set(bundle.check_bundle(packed)["files"])
    assert names == {*bundle.REQUIRED, "encoder/config.json", "encoder/model.safetensors",
                     "results.json", "RESULTS.md", "det.png", "histogram_pairs.png",
                     "histogram_train_asnorm3_pairs.png"}
    assert (packed / "speakers.txt").read_text() == "a\nb\nc\né\n"
    averaged = scored / "models" / "avg_model.safetensors"
    assert (packed / "model.safetensors").read_bytes() == averaged.read_bytes()
    arrays = safetensors.numpy.load_file(packed / "statistics.safetensors")
    mean = np.load(scored / "embeddings" / "train" / "mean_vec.npy")
    utts, vectors = read_vectors(scored / "embeddings" / "train" / "xvector.scp")
    cohort = [np.mean([v for utt, v in zip(utts, vectors, strict=True) if utt[0] == speaker],
                      axis=0) - mean for speaker in "abcé"]
    np.testing.assert_array_equal(arrays["mean"], mean)
    np.testing.assert_allclose(arrays["cohort"], cohort, atol=1e-6)
    scoring = json.loads((packed / "thresholds.json").read_text())
    assert scoring["normalisation"] == {"norm": "asnorm", "cohort": "train", "top_n": 3,
                                        "num_speakers": 4}
    assert [(p["trials"], p["norm"], p["point"]) for p in scoring["points"]] == [
        ("pairs", norm, point) for norm in ("none", "asnorm")
        for point in ("eer", "far_1", "far_0.1", "min_dcf")]
    metrics = json.loads((scored / "scores" / "train_asnorm3_pairs.json").read_text())
    assert scoring["points"][4]["threshold"] == metrics["threshold"]


def test_the_card(packed):
    _, header, text = (packed / "README.md").read_text().split("---\n", 2)
    header = yaml.safe_load(header)
    assert header["library_name"] == "wespeaker_lap" and "speaker-verification" in header["tags"]
    assert (header["code_license"], header["encoder_license"], header["data_license"]) == (
        "Apache-2.0", "not stated", "not stated")
    eer = header["model-index"][0]["results"][0]["metrics"][0]
    rows = json.loads((packed / "results.json").read_text())["rows"]
    assert (eer["type"], eer["value"]) == ("eer", round(rows[0]["eer"], 3))
    for part in ("# lap-é", "## Intended use", "## Training data", "4 speakers", "## Results",
                 f"| pairs | AS-norm | {rows[1]['eer']:.3f} |",
                 "## Thresholds", "- Data: not stated", "](det.png)"):
        assert part in text, part


def test_options(exp_dir, unchecked, tmp_path):
    licences = Licences(encoder="CC BY-SA 3.0", data="CC BY 4.0")
    done = pack(exp_dir, tmp_path / "out" / "m", as_tar=True, licences=licences)
    assert done == tmp_path / "out" / "m.tar" and list(done.parent.iterdir()) == [done]
    with bundle.unpacked(done) as folder:
        manifest = bundle.check_bundle(folder)
        assert "- Encoder: CC BY-SA 3.0\n- Data: CC BY 4.0" in (folder / "README.md").read_text()
    assert manifest["licences"]["data"] == "CC BY 4.0" and not manifest["encoder_included"]
    assert not any(name.startswith("encoder/") for name in manifest["files"])
    assert pack(exp_dir, done, as_tar=True) == done  # an older one is replaced


def test_what_differs_is_not_packed(exp_dir, tmp_path, tiny_system):
    path = exp_dir / "scores" / "train_asnorm3_pairs.score"
    trials, scores = read_scores(path)
    scores[np.argmax(scores)] += 0.5 * scores.std()
    write_scores(path, trials, scores)
    with pytest.raises(ValueError, match=r"did not pass its check: .*train_asnorm3_pairs\.score: "
                                         r"\S+ \S+ has .* with this model"):
        pack(exp_dir, tmp_path / "new" / "m", data_dirs=[tiny_system.data("test")])
    assert not list((tmp_path / "new").iterdir())


def test_scores_again(scored, tmp_path, tiny_system, exp_dir):
    model = load_model(scored)
    found = reproduce_scores(model, scored, num=5)
    assert [(one.score_file, one.num_scores) for one in found] == [
        ("pairs.score", 5), ("train_asnorm3_pairs.score", 5)]
    assert all(one.difference <= one.tolerance for one in found)
    for path in (exp_dir / "scores").glob("*.json"):  # as earlier versions wrote them
        facts = json.loads(path.read_text())
        del facts["data_dir"]
        path.write_text(json.dumps(facts))
    with pytest.raises(FileNotFoundError, match="give their data directories with --data"):
        reproduce_scores(model, exp_dir)
    with pytest.raises(FileNotFoundError, match=r"no recordings of .*data directory of these"):
        reproduce_scores(model, exp_dir, [tiny_system.data("train")])
    assert len(reproduce_scores(model, exp_dir, [tiny_system.data("test")], num=1)) == 2
    model.mean = model.mean + 1
    with pytest.raises(ValueError, match=r"pairs\.score: \S+ \S+ has"):
        reproduce_scores(model, scored, num=5)


def test_an_encoder_of_ones_own(exp_dir, unchecked, tmp_path, repo, test_wavs, caplog):
    """Its folder is no part of the packed configuration; the weights decide, not the place."""
    own = shutil.copytree(repo / "wespeaker_lap/frontends/assets/wavlm_tiny", tmp_path / "mine")
    config = (exp_dir / "config.yaml").read_text()
    (exp_dir / "config.yaml").write_text(config.replace("name: wavlm_tiny", f"name: {own}"))
    facts = json.loads((exp_dir / "model.json").read_text())
    facts["features"]["encoder"] = "mine"
    (exp_dir / "model.json").write_text(json.dumps(facts))
    done = pack(exp_dir, tmp_path / "m")
    assert "include it with --with_encoder" in caplog.text
    assert unchecked[0][-1] == str(own)
    assert load_config(done / "config.yaml").frontend.name == "mine"
    assert str(tmp_path) not in (done / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"its encoder mine \(weights .* give its place with --en"):
        load_model(done)
    wav = next(iter(test_wavs.values()))
    expected = load_model(exp_dir).embed(wav)
    moved = own.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_model(done, encoder=moved).embed(wav), expected)
    weights = safetensors.numpy.load_file(moved / "model.safetensors")
    name = "encoder.feature_projection.projection.weight"
    safetensors.numpy.save_file({**weights, name: 2 * weights[name]}, moved / "model.safetensors")
    with pytest.raises(ValueError, match="trained on: weights_sha256 is"):
        load_model(done, encoder=moved)


def test_a_changed_file_is_not_loaded(packed, tmp_path):
    given = copy_of(packed, tmp_path)
    text = (given / "config.yaml").read_text()
    (given / "config.yaml").write_text(text.replace("num_heads: 4", "num_heads: 2"))
    with pytest.raises(ValueError, match=r"config\.yaml changed after packing"):
        load_model(given)


def test_other_thresholds_are_told(packed, tmp_path):
    given = copy_of(packed, tmp_path)
    (given / "thresholds.json").write_text("{}")
    bundle.seal(given, {})
    with pytest.raises(ValueError, match=r"thresholds\.json is not what this version"):
        load_model(given)


def test_only_packed_models_are_replaced(exp_dir, unchecked, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").write_text("years of work")
    with pytest.raises(ValueError, match="thesis: is there and no packed model"):
        pack(exp_dir, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.md").read_text() == "years of work"
    pack(exp_dir, tmp_path / "m")
    (tmp_path / "m" / "old.txt").touch()
    pack(exp_dir, tmp_path / "m")
    assert not (tmp_path / "m" / "old.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exp", "m", "thesis"]


@pytest.mark.parametrize(("missing", "message"), [
    ("models/avg_model.safetensors", r"avg_model\.safetensors: no such file; run stages 3 and 4"),
    ("speakers.txt", r"speakers\.txt: no such file; run stages 3 and 4"),
    ("scores", "nothing was scored yet; run stage 5"),
])
def test_what_is_missing_is_named(exp_dir, unchecked, tmp_path, missing, message):
    shutil.move(exp_dir / missing, tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=message):
        pack(exp_dir, tmp_path / "out" / "m")
    assert not list((tmp_path / "out").iterdir())
