"""Decisions about voices: in Python and on the command line, with the exit codes of both."""

import json
import math
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from checks import assert_refused, snapshot

from wespeaker_lap import load_model
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.io.audio import AudioError, read_audio
from wespeaker_lap.io.table import write_table
from wespeaker_lap.share.batch import embed_wavs
from wespeaker_lap.share.inference import embed_samples
from wespeaker_lap.share.speaker import SpeakerModel


def test_a_decision_by_hand(scored, model, voices):
    """AS-norm of one pair, from the embeddings, as its formula says."""
    a, b = voices["x"][0], voices["y"][0]
    mean = np.load(scored / "embeddings" / "train" / "mean_vec.npy")
    stored = kaldiio.load_scp(str(scored / "embeddings" / "train" / "xvector.scp"))
    cohort = np.stack([np.mean([v for utt, v in stored.items() if utt[0] == speaker], axis=0)
                       for speaker in "abcé"]) - mean
    unit = [v / np.linalg.norm(v) for v in (model.embed(a) - mean, model.embed(b) - mean)]
    cohort /= np.linalg.norm(cohort, axis=1, keepdims=True)
    tops = [np.sort(cohort @ v)[-3:] for v in unit]
    cosine = float(unit[0] @ unit[1])
    expected = np.mean([(cosine - top.mean()) / top.std() for top in tops])
    found = model.verify(a, b)
    assert found.norm == "asnorm" and found.score == pytest.approx(expected, rel=1e-3, abs=1e-3)
    metrics = json.loads((scored / "scores" / "train_asnorm3_pairs.json").read_text())
    assert found.threshold == metrics["threshold"]
    assert found.threshold_source == ("EER point of pairs (18 target and 18 non-target trials), "
                                      "AS-norm with cohort train (4 speakers, top 3)")
    assert found.decision == ("accepted" if expected >= found.threshold else "rejected")
    plain = model.verify(a, b, norm="none", threshold=cosine - 0.01)
    assert (plain.decision, plain.threshold_source) == ("accepted", "given by the caller")
    assert plain.score == pytest.approx(cosine, abs=1e-5)
    assert model.verify(a, b, threshold=cosine + 0.01).decision == "rejected"
    with pytest.raises(ValueError, match="want a threshold that is a number, got nan"):
        model.verify(a, b, threshold=math.nan)


def test_warnings(model, voices, tmp_path):
    samples = np.tile(read_audio(voices["x"][0]), 6)
    found = model.verify(samples, samples, threshold=0.5)
    assert (found.decision, found.warnings, found.status) == ("accepted", (), "ok")
    soundfile.write(tmp_path / "slow.wav", samples[::2], 8000)
    found = model.verify(tmp_path / "slow.wav", voices["x"][1])
    assert [text.split(": ", 1)[1][:14] for text in found.warnings[:2]] == ["8000 Hz, the m",
                                                                            "about 0.6 s of"]
    assert "false acceptances among 18 trials; it is reliable from 30" in found.warnings[2]


@pytest.mark.parametrize("status", ["missing", "broken", "silent", "short"])
def test_what_cannot_be_used_has_a_status(model, voices, bad, status):
    found = model.verify(voices["x"][0], bad[status])
    assert (found.decision, found.score, found.status) == (None, None, status)
    assert len(found.warnings) == 1 and found.warnings[0].startswith(f"{bad[status]}: ")
    with pytest.raises(AudioError, match=f"{status}.wav: "):
        model.embed([voices["x"][0], bad[status]])


def test_an_embedding_is_the_same_alone_and_in_a_batch(model, test_wavs):
    paths = list(test_wavs.values())
    alone = np.stack([model.embed(path) for path in paths])
    for batch_size in (2, 5, 100):
        np.testing.assert_allclose(model.embed(paths, batch_size), alone, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="want a batch_size of 1 or more, got 0"):
        model.embed(paths, 0)
    with pytest.raises(ValueError, match="no recordings to embed"):
        model.embed([])


def test_of_a_selection_and_of_long_recordings(model, test_wavs):
    """Half of the layers and frames; and recordings that go through in windows, alone."""
    chosen = Selection(model.frontend, layers=[0, 3], frame_stride=2)

    class FirstFrames:
        """Stands for a network: the mean of the features, so that padding would show."""

        def parameters(self):
            return model.net.parameters()

        def __call__(self, feats, lengths):
            assert feats.shape[2:] == (2, 192)
            return feats.sum(dim=(1, 2)) / lengths[:, None]

    waves = [read_audio(path) for path in list(test_wavs.values())[:3]]
    waves.append(np.tile(waves[0], 60))
    assert len(waves[3]) > 30 * 16000
    together = embed_samples(chosen, FirstFrames(), "float16", waves)
    alone = [chosen.encode(model_input(wave)).half().float().mean(0).sum(0) for wave in waves]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-2, atol=1e-2)


def model_input(wave):
    import torch
    return torch.from_numpy(wave)


def test_enrol_and_identify(model, scored, voices, tmp_path):
    model = load_model(scored)
    with pytest.raises(ValueError, match="nobody is enrolled; enrol speakers or load a gallery"):
        model.identify(voices["x"][0])
    model.enroll("Xé", voices["x"][:3])
    model.register("Y", voices["y"][0])
    found = model.identify(voices["x"][3], norm="none")
    mean = model.mean
    test = model.embed(voices["x"][3]) - mean
    enrolled = model.embed(voices["x"][:3]).mean(axis=0) - mean
    expected = enrolled @ test / np.linalg.norm(enrolled) / np.linalg.norm(test)
    assert found.score == pytest.approx(float(expected), abs=1e-5)
    assert [name for name, _ in found.ranking] == ["Xé", "Y"] and found.speaker == "Xé"
    nobody = model.recognize(voices["x"][3], threshold=1.01)
    assert (nobody.decision, nobody.speaker, nobody.ranking[0][0]) == ("rejected", None, "Xé")
    model.save_gallery(tmp_path / "g.safetensors")
    other = load_model(scored)
    other.load_gallery(tmp_path / "g.safetensors")
    assert other.identify(voices["x"][3], norm="none") == found
    with model_changed(other), pytest.raises(ValueError, match="a gallery of another model"):
        other.load_gallery(tmp_path / "g.safetensors")


class model_changed:
    """One weight of a model is another inside the block."""

    def __init__(self, model):
        self.weight = next(model.net.parameters()).data

    def __enter__(self):
        self.weight[0] += 1

    def __exit__(self, *_):
        self.weight[0] -= 1


def test_wespeakers_names(model, voices, test_wavs, tmp_path):
    np.testing.assert_array_equal(model.extract_embedding(voices["x"][0]),
                                  model.embed(voices["x"][0]))
    assert model.compute_similarity(*voices["x"][:2]) == model.similarity(*voices["x"][:2])
    write_table(tmp_path / "wav.scp", test_wavs)
    names, vectors = model.extract_embedding_list(tmp_path / "wav.scp")
    assert names == sorted(test_wavs) and vectors.shape == (12, 16)


def test_without_operating_points(model, voices):
    plain = SpeakerModel(model.frontend, model.net, model.codec, model.mean)
    with pytest.raises(ValueError, match="no operating point eer; give a threshold of your own"):
        plain.verify(*voices["x"][:2])
    with pytest.raises(ValueError, match="has no cohort for 'asnorm' scores; it has none"):
        plain.verify(*voices["x"][:2], norm="asnorm", threshold=1)


def test_exit_codes(lap, scored, voices, bad):
    pair = voices["x"][:2]
    done = lap("verify", scored, *pair, "--threshold", "-1")
    assert done.code == 0 and done.out.startswith("accepted score ")
    done = lap("verify", scored, *pair, "--threshold", "1.1")
    assert done.code == 1 and "threshold 1.10000 (given by the caller)\n" in done.out
    assert done.err.startswith("warning: ") and "s of speech" in done.err
    done = lap("verify", scored, pair[0], bad["silent"])
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {bad['silent']}: silent (no sample above -80 dBFS)\n"
    for args in ((scored, *pair, "--point", "best"), (scored / "no", *pair)):
        done = lap("verify", *args)
        assert (done.code, done.out) == (2, "") and done.err.startswith("error: ")
        assert done.err.count("\n") == 1
    done = lap("similarity", scored / "no", *pair)
    assert done.code == 1  # verbs that decide nothing end with 1, as ever


def test_a_crash_is_no_rejection(lap, scored, voices, monkeypatch):
    def crash(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SpeakerModel, "verify", crash)
    done = lap("verify", scored, *voices["x"][:2])
    assert done.code == 2 and "RuntimeError: out of memory" in done.err


def test_json(lap, model, scored, voices, bad):
    done = lap("verify", scored, *voices["x"][:2], "--json", "--norm", "none")
    found = json.loads(done.out)
    expected = model.verify(*voices["x"][:2], norm="none")
    assert found["score"] == expected.score and found["decision"] == expected.decision
    assert found["threshold_source"] == expected.threshold_source
    done = lap("verify", scored, bad["missing"], voices["x"][0], "--json")
    found = json.loads(done.out)
    assert done.code == 2 and (found["status"], found["decision"]) == ("missing", None)
    done = lap("similarity", scored, *voices["x"][:2], "--json")
    assert json.loads(done.out)["similarity"] == pytest.approx(expected.score)


def test_identify_on_the_command_line(lap, scored, voices, tmp_path):
    gallery = tmp_path / "g.safetensors"
    assert lap("enroll", scored, "x", *voices["x"][:3], "--gallery", gallery).code == 0
    done = lap("enroll", scored, "y", voices["y"][0], "--gallery", gallery)
    assert done.out == f"{gallery}: 2 speakers\n"
    done = lap("enroll", scored, "y", voices["y"][1], "--gallery", gallery)
    assert done.code == 1 and "the name 'y' is empty or enrolled already" in done.err
    done = lap("identify", scored, voices["x"][3], "--gallery", gallery, "--threshold", "-1")
    assert done.code == 0 and done.out.startswith("accepted x score ")
    done = lap("identify", scored, voices["x"][3], "--gallery", gallery, "--threshold", "2",
               "--json")
    assert done.code == 1 and json.loads(done.out)["ranking"][0][0] == "x"
    assert lap("identify", scored, voices["x"][3], "--gallery", tmp_path / "no").code == 2


def test_a_table_of_recordings(lap, model, scored, test_wavs, bad, tmp_path):
    write_table(tmp_path / "wav.scp", test_wavs)
    out = tmp_path / "xvector"
    done = lap("embed", scored, tmp_path / "wav.scp", "-o", out, "--batch_size", "5")
    assert (done.code, done.out) == (0, f"{out}/xvector.scp\n")
    stored = kaldiio.load_scp(str(out / "xvector.scp"))
    assert set(stored) == set(test_wavs) and not (out / "rejects.tsv").exists()
    for utt in list(test_wavs)[::5]:
        np.testing.assert_allclose(stored[utt], model.embed(test_wavs[utt]), rtol=1e-3, atol=1e-4)
    before = snapshot(out)
    write_table(tmp_path / "wav.scp", {**test_wavs, "bad-1": bad["broken"], "bad-2": bad["short"]})
    done = lap("embed", scored, tmp_path / "wav.scp", "-o", out)
    assert done.code == 1 and "2 of 14 recordings cannot be used: " in done.err
    assert snapshot(out) == before
    done = lap("embed", scored, tmp_path / "wav.scp", "-o", out, "--unusable", "skip", "--json")
    told = json.loads(done.out)
    assert done.code == 0 and told["num_embedded"] == 12 and set(told["rejects"]) == {"bad-1",
                                                                                      "bad-2"}
    assert set(kaldiio.load_scp(str(out / "xvector.scp"))) == set(test_wavs)
    lines = [line.split("\t") for line in (out / "rejects.tsv").read_text().splitlines()]
    assert [line[:3] for line in lines] == [["bad-1", bad["broken"], "broken"],
                                            ["bad-2", bad["short"], "short"]]
    with pytest.raises(AudioError, match="1 of 1 recordings cannot be used"):
        embed_wavs(model, {"a": bad["silent"]}, out, unusable="skip")
    with pytest.raises(ValueError, match="want unusable error or skip, got 'ignore'"):
        embed_wavs(model, test_wavs, out, unusable="ignore")


def test_ids_with_blanks_are_refused_before_anything_is_embedded(lap, scored, test_wavs, tmp_path,
                                                                 monkeypatch):
    paths = [tmp_path / "a b.wav", tmp_path / "c.wav"]
    for path, source in zip(paths, test_wavs.values(), strict=False):
        path.write_bytes(Path(source).read_bytes())
    monkeypatch.setattr(SpeakerModel, "inspect", None)  # nothing is read
    done = lap("embed", scored, *paths, "-o", tmp_path / "out")
    assert_refused(done, f"ids that are empty or hold white space: '{paths[0]}'; "
                         f"give a wav.scp with ids of your own")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    (tmp_path / "wav.scp").write_text(f"a {paths[0]}\nc {paths[1]}\n", encoding="utf-8")
    assert lap("embed", scored, tmp_path / "wav.scp", "-o", tmp_path / "out").code == 0
    assert set(kaldiio.load_scp(str(tmp_path / "out" / "xvector.scp"))) == {"a", "c"}


def test_pack_and_check_on_the_command_line(lap, scored, packed, tmp_path, tiny_system):
    done = lap("check-model", packed, scored, "--num", "4")
    assert done.code == 0 and done.out.startswith("pairs.score: 4 scores, largest difference 0.0")
    done = lap("check-model", packed, scored, "--data", tiny_system.data("train"))
    assert done.code == 1 and "no recordings of " in done.err
    done = lap("push", packed, "org/name")
    assert done.code == 1 and "org/name: want hf://org/name" in done.err
    done = lap("pack", tmp_path, "-o", tmp_path / "m")
    assert done.code == 1 and "is no trained model" in done.err and not list(tmp_path.iterdir())
