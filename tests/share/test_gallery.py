"""Enrolled speakers, in memory and on disk."""

import numpy as np
import pytest
import safetensors.numpy

from wespeaker_lap.share.gallery import Gallery


@pytest.fixture
def gallery():
    made = Gallery()
    made.add("åsa", np.array([[1, 2, 3], [3, 2, 5]], np.float32))
    made.add("bo", np.array([[0, 1, 0]], np.float32))
    return made


def test_a_speaker_is_the_mean(gallery):
    assert (gallery.names, len(gallery)) == (["åsa", "bo"], 2)
    assert gallery.vectors.tolist() == [[2, 2, 4], [0, 1, 0]] and gallery.vectors.dtype == "f4"
    gallery.remove("åsa")
    assert gallery.names == ["bo"]


def test_what_is_written_is_read(gallery, tmp_path):
    gallery.save(tmp_path / "new" / "g.safetensors", "model 1")
    read = Gallery.load(tmp_path / "new" / "g.safetensors", "model 1")
    assert read.names == gallery.names
    assert read.vectors.tolist() == gallery.vectors.tolist()
    with pytest.raises(ValueError, match="a gallery of another model"):
        Gallery.load(tmp_path / "new" / "g.safetensors", "model 2")


@pytest.mark.parametrize(("name", "embeddings", "message"), [
    ("bo", np.ones((1, 3)), "'bo' is empty or enrolled already"),
    (" ", np.ones((1, 3)), "' ' is empty or enrolled already"),
    ("cy", np.ones((1, 4)), r"want embeddings \(k, 3\) of cy, got \(1, 4\)"),
    ("cy", np.ones((0, 3)), r"got \(0, 3\)"),
    ("cy", np.ones(3), r"got \(3,\)"),
])
def test_what_cannot_be_enrolled(gallery, name, embeddings, message):
    with pytest.raises(ValueError, match=message):
        gallery.add(name, embeddings)
    assert gallery.names == ["åsa", "bo"]


def test_nobody(gallery, tmp_path):
    with pytest.raises(ValueError, match="'cy' is not enrolled; there are: åsa, bo"):
        gallery.remove("cy")
    with pytest.raises(ValueError, match="nobody is enrolled, there is nothing to write"):
        Gallery().save(tmp_path / "g", "model")
    with pytest.raises(FileNotFoundError, match="no such gallery; enrol somebody first"):
        Gallery.load(tmp_path / "g", "model")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "g"
    for content in (b"", b"\x80\x04pickle", safetensors.numpy.save({"a": np.ones(2)}),
                    safetensors.numpy.save({"embeddings": np.ones((2, 3))}, {"names": "[]"})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="g: not a gallery"):
            Gallery.load(path, "model")
    facts = {"format": "wespeaker_lap gallery 1", "model": "model", "names": '["a"]'}
    path.write_bytes(safetensors.numpy.save({"embeddings": np.ones((2, 3))}, facts))
    with pytest.raises(ValueError, match="not a whole gallery"):
        Gallery.load(path, "model")
