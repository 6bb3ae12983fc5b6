"""Training on a store with copies: its classes, its examples, and what follows from them."""

import numpy as np
import programs
import pytest
import safetensors.torch
from checks import snapshot
from trainings import read_steps, strip_times, weights_of, write_store

from wespeaker_lap.data.copies import parse_copies
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.engine import embed
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter
from wespeaker_lap.io.vectors import read_vectors

NAMES = ["clean", "noise", "speed0.9"]
CONFIGURED = f"features.copies=[{', '.join(NAMES)}]"


@pytest.fixture(scope="module")
def feats(corpus, tmp_path_factory):
    """A noisy and a slower copy of every utterance of the corpus."""
    directory = tmp_path_factory.mktemp("copies") / "feats"
    utt2spk = {copy.utt_id(utt): copy.speaker(speaker) for copy in parse_copies(NAMES)
               for utt, speaker in corpus.data.utt2spk.items()}
    write_store(directory, utt2spk, 0, augmentation={"copies": NAMES, "seed": 0})
    return directory


@pytest.fixture(scope="module")
def trained(corpus, feats, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("trained") / "exp"
    corpus.train(exp_dir, CONFIGURED, feats=feats)
    return exp_dir


def test_speakers_and_utterances_multiply(trained):
    """48 utterances of 12 speakers, and as many slower ones: 12 batches of 8 an epoch."""
    assert len(read_steps(trained)) == 3 * 12
    speakers = (trained / "speakers.txt").read_text().split()
    assert speakers == sorted([f"train{n:02d}" for n in range(12)]
                              + [f"sp0.9-train{n:02d}" for n in range(12)])
    assert load_facts(trained)["num_speakers"] == 24
    tensors = safetensors.torch.load(weights_of(trained))
    assert [len(value) for name, value in tensors.items() if "centers" in name] == [24]


def test_every_example_is_of_its_class(corpus, feats, tmp_path, monkeypatch):
    seen, fill = {}, FeatureSource.fill

    def watched(source, key, out):
        filled = fill(source, key, out)
        seen[filled[0]] = source.speakers[filled[1]]
        return filled

    monkeypatch.setattr(FeatureSource, "fill", watched)
    corpus.train(tmp_path / "exp", CONFIGURED, "train.epochs=4", feats=feats)
    utt2spk = corpus.data.utt2spk
    for utt, speaker in utt2spk.items():
        assert seen[f"sp0.9-{utt}"] == f"sp0.9-{speaker}"
        assert {seen.get(utt, speaker), seen.get(f"noise-{utt}", speaker)} == {speaker}
    assert {"train", "noise", "sp0.9"} == {utt.partition("-")[0].rstrip("0123456789")
                                           if not utt.startswith("sp0.9") else "sp0.9"
                                           for utt in seen}


def test_two_processes_see_the_same_examples(corpus, launcher, feats, trained, tmp_path):
    command = corpus.command(tmp_path / "exp", CONFIGURED, "model.layer_pool.dropout=0",
                             "model.time_pool.dropout=0")
    command[command.index("--feats") + 1] = feats
    done = launcher.verb_by_two(command)
    assert [code for code, _ in done] == [0, 0], done
    corpus.train(tmp_path / "one", CONFIGURED, "model.layer_pool.dropout=0",
                 "model.time_pool.dropout=0", feats=feats)
    np.testing.assert_allclose([step["loss"] for step in read_steps(tmp_path / "exp")],
                               [step["loss"] for step in read_steps(tmp_path / "one")], rtol=1e-4)


def test_the_set_is_embedded_by_its_originals(corpus, feats, trained):
    utts = sorted(corpus.data.wavs)
    scp = embed.embed_set(trained, feats, utts, "train", programs.ALONE, "epoch_003")
    assert read_vectors(scp)[0] == utts


def test_the_clean_copy_alone_trains_as_without_copies(corpus, tmp_path):
    """The same weights, bit for bit, from a store that has other copies as well."""
    store, names = FeatureStore(corpus.root / "feats"), ["clean", "noise"]
    identity = {**store.identity, "augmentation": {"copies": names, "seed": 0}}
    with FeatureWriter(tmp_path / "feats", identity, "float32") as writer:
        for utt in store:
            writer.write(utt, store[utt])
            writer.write(f"noise-{utt}", store[utt] + 1)
    corpus.train(tmp_path / "plain")
    corpus.train(tmp_path / "exp", f"features.copies=[{', '.join(names)}]",
                 "train.copy_weights.noise=0", feats=tmp_path / "feats")
    assert weights_of(tmp_path / "exp") == weights_of(tmp_path / "plain")
    steps = [strip_times(read_steps(tmp_path / name)) for name in ("exp", "plain")]
    assert steps[0] == steps[1]


def test_what_does_not_fit_is_refused(corpus, feats, trained, tmp_path):
    with pytest.raises(ValueError, match=r"its copies are clean, noise, speed0\.9, the config"):
        corpus.train(tmp_path / "exp", feats=feats)
    with pytest.raises(ValueError, match=r"original voices"):
        corpus.train(tmp_path / "exp", CONFIGURED, "train.copy_weights={clean: 0, noise: 0}",
                     feats=feats)
    data = corpus.data
    taken = {**data.utt2spk, "noise-train00-0": "train00"}
    with pytest.raises(ValueError, match=r"would be called .*: noise-train00-0"):
        corpus.train(tmp_path / "exp", CONFIGURED, feats=feats,
                     data=type(data)(data.path, taken, taken, {}, {}))
    assert not (tmp_path / "exp").exists()
    before = snapshot(trained / "models")
    with pytest.raises(ValueError, match=r"another training: train\.copy_weights\.noise is None, "
                                         r"expected 0\.5"):
        corpus.train(trained, CONFIGURED, "train.copy_weights.noise=0.5", feats=feats)
    assert snapshot(trained / "models") == before
