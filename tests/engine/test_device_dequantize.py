"""Features that the device dequantizes: the same training, to the byte."""

import pytest
import torch
from trainings import IDENTITY, read_metrics, strip_times, weights_of

from wespeaker_lap.engine import train as training
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter


@pytest.fixture(params=["int8", "float16"])
def small_feats(request, corpus, tmp_path):
    """The corpus's features in another codec."""
    store = FeatureStore(corpus.root / "feats")
    identity = {**IDENTITY, "num_layers": store.num_layers, "dim": store.dim}
    with FeatureWriter(tmp_path / "feats", identity, request.param) as writer:
        for utt in store:
            writer.write(utt, store[utt])
    return tmp_path / "feats"


def test_a_training_is_the_same_wherever_features_are_dequantized(corpus, small_feats, tmp_path):
    for place in ("host", "device"):
        corpus.train(tmp_path / place, f"train.dequantize={place}", "train.epochs=1",
                     feats=small_feats, validation=None)
    assert weights_of(tmp_path / "host", 1) == weights_of(tmp_path / "device", 1)
    host, device = (strip_times(read_metrics(tmp_path / place)) for place in ("host", "device"))
    assert host == device and len(host) == 7
    # And the other way may be taken by the next start of the same training.
    corpus.train(tmp_path / "host", "train.dequantize=device", "train.epochs=1",
                 feats=small_feats, validation=None)


def test_what_reaches_the_training_step_is_as_stored(corpus, small_feats, tmp_path, monkeypatch):
    seen, update = [], training._update

    def watch(run, batch, *others):
        seen.append((batch.feats.dtype, run.to_floats(batch.feats).dtype))
        return update(run, batch, *others)

    monkeypatch.setattr(training, "_update", watch)
    corpus.train(tmp_path / "exp", "train.dequantize=device", "train.epochs=1", feats=small_feats,
                 validation=None)
    assert set(seen) == {(torch.uint8, torch.float32)}


def test_a_float32_store_is_refused(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"'device' is for features stored as int8 or float16, "
                                         r"these are float32; set it to 'host'"):
        corpus.train(tmp_path / "exp", "train.dequantize=device", validation=None)
