"""Embeddings in ark/scp: readable by kaldiio, moved, cut short, and with wrong ids."""

import kaldiio
import numpy as np
import pytest

from wespeaker_lap.io.vectors import read_vectors, write_vectors

UTTS = ["id1/a", "é", "语者/录音1"]
VECTORS = np.array([[1, 2, 3, 4], [0.5, -0.25, 1e-30, 3e38], [7, 8, 9, 10]], np.float32)


def test_both_readers_give_what_was_written(tmp_path):
    scp = write_vectors(tmp_path / "new", UTTS, VECTORS.astype(np.float64))
    assert scp == tmp_path / "new" / "xvector.scp"
    utts, vectors = read_vectors(scp)
    assert utts == sorted(UTTS) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, VECTORS)
    loaded = kaldiio.load_scp(str(scp))
    assert list(loaded) == utts
    for utt, row in zip(UTTS, VECTORS, strict=True):
        np.testing.assert_array_equal(loaded[utt], row)
    # And entry by entry, as Kaldi's own sequential readers do.
    for (key, row), (utt, wanted) in zip(kaldiio.load_ark(str(scp.with_suffix(".ark"))),
                                         zip(UTTS, VECTORS, strict=True), strict=True):
        assert key == utt
        np.testing.assert_array_equal(row, wanted)


def test_the_bytes_are_kaldis(tmp_path):
    write_vectors(tmp_path, ["u"], np.array([[1.0, -2.0]]), name="spk_xvector")
    assert (tmp_path / "spk_xvector.ark").read_bytes() == (
        b"u \0BFV \4\2\0\0\0" + np.array([1, -2], "<f4").tobytes())
    assert (tmp_path / "spk_xvector.scp").read_text() == f"u {tmp_path}/spk_xvector.ark:2\n"


def test_what_kaldiio_wrote_is_read(tmp_path):
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/a.ark,{tmp_path}/a.scp") as writer:
        for utt, row in zip(UTTS, VECTORS, strict=True):
            writer(utt, row)
    utts, vectors = read_vectors(tmp_path / "a.scp", [UTTS[2], UTTS[0]])
    assert utts == [UTTS[2], UTTS[0]]
    np.testing.assert_array_equal(vectors, VECTORS[[2, 0]])


def test_a_moved_folder_is_read_where_it_is(tmp_path):
    write_vectors(tmp_path / "old", UTTS, VECTORS)
    (tmp_path / "old").rename(tmp_path / "new")
    np.testing.assert_array_equal(read_vectors(tmp_path / "new" / "xvector.scp")[1], VECTORS)
    (tmp_path / "new" / "xvector.ark").unlink()
    with pytest.raises(ValueError, match=r"id1/a: neither .*new/xvector.ark nor .*old/xvector.ark"):
        read_vectors(tmp_path / "new" / "xvector.scp")


@pytest.mark.parametrize(("utts", "vectors", "message"), [
    (["a"], np.ones((2, 3)), "each of 1 ids, got"),
    (["a", "b"], np.ones(2), "each of 2 ids, got"),
    (["a", "é"], np.array([[1, 2], [1, np.nan]]), "not finite numbers: é"),
    (["a", "b", "a"], np.ones((3, 2)), "stand twice or hold white space: 'a'"),
    (["a", "my file.wav"], np.ones((2, 2)), "'my file.wav'"),
    (["a", ""], np.ones((2, 2)), "''"),
])
def test_what_is_not_written(tmp_path, utts, vectors, message):
    with pytest.raises(ValueError, match=message):
        write_vectors(tmp_path, utts, vectors)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_rewrite_leaves_no_scp_into_another_ark(tmp_path, monkeypatch):
    write_vectors(tmp_path, ["a", "b"], np.ones((2, 3)))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(kaldiio, "save_ark", stop)
    with pytest.raises(KeyboardInterrupt):
        write_vectors(tmp_path, ["b", "a"], np.ones((2, 3)))
    assert [path.name for path in tmp_path.iterdir()] == ["xvector.ark"]


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_truncated_ark_names_the_utterance(tmp_path, cut):
    scp = write_vectors(tmp_path, ["a", "é"], np.ones((2, 2)))
    ark = scp.with_suffix(".ark")
    size = ark.stat().st_size  # the last entry: "é " and 6 + 4 + 8 bytes
    ark.write_bytes(ark.read_bytes()[:size - cut])
    with pytest.raises(ValueError, match=r"xvector\.ark: .*é") as info:
        read_vectors(scp)
    assert str(ark) in str(info.value)
    np.testing.assert_array_equal(read_vectors(scp, ["a"])[1], [[1, 1]])


def test_other_bad_tables(tmp_path):
    scp = write_vectors(tmp_path, ["a", "b"], np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"xvector.scp: no vector for c, d"):
        read_vectors(scp, ["a", "c", "d"])
    with pytest.raises(ValueError, match="holds no vectors"):
        read_vectors(scp, [])
    write_vectors(tmp_path, ["e"], np.ones((1, 2)), name="other")
    scp.write_text(scp.read_text() + (tmp_path / "other.scp").read_text())
    with pytest.raises(ValueError, match="another length than the first one's 3: e"):
        read_vectors(scp)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.scp: no such file"):
        read_vectors(tmp_path / "nowhere.scp")


@pytest.mark.parametrize("entry", ["touch ran |", "xvector.ark", "xvector.ark:1[0:2]", ":3",
                                   "xvector.ark:-1"])
def test_an_entry_that_is_no_offset_is_refused(tmp_path, entry):
    write_vectors(tmp_path, ["a"], np.ones((1, 3)))
    (tmp_path / "xvector.scp").write_text(f"a {entry}\n")
    with pytest.raises(ValueError, match=r"xvector\.scp: a: expected 'ark:offset'"):
        read_vectors(tmp_path / "xvector.scp")


def test_another_kind_of_entry_is_refused(tmp_path):
    kaldiio.save_ark(str(tmp_path / "m.ark"), {"a": np.ones((2, 2), np.float32)},
                     scp=str(tmp_path / "m.scp"))
    with pytest.raises(ValueError, match=r"no float vector at byte 2 \(a\)"):
        read_vectors(tmp_path / "m.scp")
