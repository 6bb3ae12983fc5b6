"""What the demo does with recordings: decisions, the gallery and its file, and every error."""

import re

import numpy as np
import pytest

from wespeaker_lap.share.demo_desk import Desk
from wespeaker_lap.share.gallery import Gallery


@pytest.fixture
def fresh(model, monkeypatch):
    """The model with an empty gallery of its own."""
    monkeypatch.setattr(model, "gallery", Gallery())
    return model


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_pair_on_both_sides_of_a_threshold(fresh, voices):
    pair = (voices["x"][0], voices["x"][1])
    score = fresh.similarity(*pair)
    below, above = Desk(fresh, threshold=score - 0.01), Desk(fresh, threshold=score + 0.01)
    assert "Accepted: one speaker" in below.verify(*pair)
    told = words(above.verify(*pair))
    assert "Rejected: two speakers" in told and f"{score:.5f} (cosine)" in told
    assert f"{score + 0.01:.5f}, given by the caller" in told


def test_the_models_own_threshold(fresh, voices):
    desk = Desk(fresh)
    expected = fresh.verify(voices["x"][0], voices["y"][0])
    assert (desk.threshold, desk.source) == (expected.threshold, expected.threshold_source)
    told = words(desk.verify(voices["x"][0], voices["y"][0]))
    assert f"{expected.score:.5f} (AS-norm)" in told and expected.threshold_source in told
    assert "false acceptances among 18 trials" in told
    assert "First recording: about 0." in told and voices["x"][0] not in told


def test_one_file_twice(fresh, voices):
    told = words(Desk(fresh, threshold=0.5).verify(voices["x"][0], voices["x"][0]))
    assert "The two recordings are the same file." in told
    assert told.count("Both recordings: about 0.") == 1


@pytest.mark.parametrize("status", ["missing", "broken", "silent", "short"])
def test_what_cannot_be_used_is_told(fresh, voices, bad, status):
    desk, path = Desk(fresh, threshold=0.5), bad[status]
    desk.enroll("x", voices["x"][:1])
    reason = {"missing": "no such file", "broken": "not readable", "silent": "silent (no",
              "short": "100 samples are too few"}[status]
    for told, label in ((desk.verify(voices["x"][0], path), "Second recording"),
                        (desk.identify(path), "The recording"),
                        (desk.enroll("y", [voices["y"][0], path]), f"{status}.wav")):
        assert f"{label}: {reason}" in words(told) and path not in told
        assert "Check the microphone and record" in told and 'role="alert"' in told
    assert desk.names == ["x"]


@pytest.mark.parametrize(("first", "second"), [(None, None), ("a.wav", None), (None, "a.wav")])
def test_nothing_to_compare(fresh, first, second):
    assert "Give two recordings" in Desk(fresh).verify(first, second)


def test_enrol_and_identify(fresh, voices):
    desk = Desk(fresh, threshold=-1.0)
    assert "Nobody is enrolled. Enrol speakers first" in desk.identify(voices["x"][3])
    assert "Give a recording" in desk.identify(None)
    assert "x is enrolled, with 3 recordings" in desk.enroll(" x ", voices["x"][:3])
    told = words(desk.enroll("y", voices["y"][:1]))
    assert told.startswith("y is enrolled, with 1 recording") and ": about 0." in told
    mean = np.mean([fresh.embed(path) for path in voices["x"][:3]], axis=0)
    np.testing.assert_allclose(fresh.gallery.vectors[0], mean, rtol=1e-3, atol=1e-4)
    scores = {}
    for name, vector in zip("xy", fresh.gallery.vectors, strict=True):
        a, b = (one - fresh.mean for one in (vector, fresh.embed(voices["x"][3])))
        scores[name] = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    told = words(desk.identify(voices["x"][3]))
    best, other = sorted(scores, key=scores.get, reverse=True)
    assert f"It is {best}" in told
    assert f"{best} {scores[best]:.3f} {other} {scores[other]:.3f}" in told
    assert "Nobody who is enrolled" in Desk(fresh, threshold=1.1).identify(voices["x"][3])


@pytest.mark.parametrize(("name", "num", "message"), [
    (" ", 1, "Give a name."), ("y", 0, "Give a recording or several."),
    ("x", 1, "the name &#39;x&#39; is empty or enrolled already")])
def test_what_is_not_enrolled(fresh, voices, name, num, message):
    desk = Desk(fresh)
    desk.enroll("x", voices["x"][:1])
    assert message in desk.enroll(name, voices["y"][:num])
    assert desk.names == ["x"]


def test_the_gallerys_file_follows(fresh, voices, tmp_path):
    path = tmp_path / "new" / "gallery.safetensors"
    desk = Desk(fresh, gallery_path=path)
    assert not path.exists()
    for name in "xy":
        desk.enroll(name, voices[name][:1])
        assert Gallery.load(path, fresh.fingerprint()).names == desk.names
    assert "Choose who is to be removed" in desk.remove([])
    assert "Removed: x" in desk.remove(["x"])
    assert Gallery.load(path, fresh.fingerprint()).names == ["y"]
    assert "&#39;x&#39; is not enrolled" in desk.remove(["x"])
    fresh.gallery = Gallery()
    assert Desk(fresh, gallery_path=path).names == ["y"]
    desk.remove(["y"])
    assert not path.exists() and desk.export(tmp_path / "none") is None


def test_a_gallery_out_and_in(fresh, voices, tmp_path):
    desk = Desk(fresh)
    desk.enroll("x", voices["x"][:1])
    kept = desk.export(tmp_path / "kept.safetensors")
    desk.remove(["x"])
    desk.enroll("y", voices["y"][:1])
    assert "Loaded 1 speaker" in desk.load(str(kept)) and desk.names == ["x"]
    fresh.gallery.save(tmp_path / "other.safetensors", "another model")
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    for name, reason in (("other", "a gallery of another model"), ("none", "not a gallery")):
        told = words(desk.load(str(tmp_path / f"{name}.safetensors")))
        assert told.startswith(f"{name}.safetensors: {reason}")
    assert desk.names == ["x"]
    with pytest.raises(ValueError, match="a gallery of another model"):
        Desk(fresh, gallery_path=tmp_path / "other.safetensors")


def test_a_gallery_that_cannot_be_written(fresh, voices, tmp_path):
    (tmp_path / "file").touch()
    desk = Desk(fresh, gallery_path=tmp_path / "file" / "gallery.safetensors")
    told = desk.enroll("x", voices["x"][:1])
    assert 'role="alert"' in told and desk.names == ["x"]
    assert f"the change counts until the demo ends, but {desk.gallery_path} cannot be" in told


@pytest.mark.parametrize(("point", "threshold", "message"), [
    ("eer", float("nan"), "want a threshold that is a finite number"),
    ("far_7", None, "no operating point far_7")])
def test_thresholds_that_are_none(fresh, point, threshold, message):
    with pytest.raises(ValueError, match=message):
        Desk(fresh, point, threshold)
