"""Joint fine-tuning: encoder and network together, and the tuned encoder on disk."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from trainings import load_last, read_metrics, read_steps, strip_times, weights_of

from wespeaker_lap import build
from wespeaker_lap.cli import training as verbs
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import checkpoint, embed, extract, train
from wespeaker_lap.engine.dist import World
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.facts import find_features, load_facts
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.io.weights import note_weights
from wespeaker_lap.score.stages import ScoringJob, score_trials
from wespeaker_lap.share.pack import pack
from wespeaker_lap.share.speaker import load_model

ALONE = World(0, 1, torch.device("cpu"))
TUNED = ("frontend={name: wavlm_tiny}", "features.layers=[0, 2]", "train.crop_seconds=0.2",
         "train.encoder={lr: 0.001, layer_decay: 0.5}", "model.layer_pool={name: weighted_sum}",
         "model.time_pool.dropout=0")
NUM_STEPS = 6
SPOILED = "encoder.encoder.transformer.layers.0.attention.attention.out_proj.weight"


@pytest.fixture(scope="module")
def tuned(wave_corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("tuned") / "exp"
    wave_corpus.train(exp_dir, *TUNED)
    return exp_dir


def encoder_of(exp_dir, epoch) -> dict[str, torch.Tensor]:
    return {name.removeprefix("encoder."): value for name, value in
            safetensors.torch.load(weights_of(exp_dir, epoch)).items()
            if name.startswith("encoder.")}


def test_every_group_has_its_rate(wave_corpus, tmp_path, monkeypatch):
    seen, update = [], train._update

    def watched(run, *rest):
        done = update(run, *rest)
        seen.append([group["lr"] for group in run.optimizer.param_groups])
        return done

    monkeypatch.setattr(train, "_update", watched)
    wave_corpus.train(tmp_path / "exp", *TUNED, "train.epochs=1")
    steps = read_steps(tmp_path / "exp")
    assert len(steps) == len(seen) == 3
    for record, rates in zip(steps, seen, strict=True):
        # The network, what is before the six blocks, the blocks: 0.5 ** 6 to 0.5 ** 0.
        want = [1.0, *(0.001 / 0.01 * 0.5 ** (6 - level) for level in range(7))]
        assert rates == pytest.approx([record["lr"] * factor for factor in want])


def test_what_is_used_moves_and_nothing_else(tuned):
    """Layers 0 and 2 come from the first two blocks; convolutions stay."""
    before = FrozenSSL.load("wavlm_tiny").model.state_dict()
    after = encoder_of(tuned, 2)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("feature_extractor") for name in moved)
    assert not any(f"layers.{n}." in name for n in (2, 3, 4, 5) for name in moved)
    assert {f"encoder.transformer.layers.{n}.feed_forward.output_dense.weight"
            for n in (0, 1)} < moved
    # Adam's steps are of about the rate: a fourth and an eighth of the network's.
    sizes = [float((after[name] - before[name]).abs().max()) for name in
             (f"encoder.transformer.layers.{n}.feed_forward.output_dense.weight" for n in (0, 1))]
    assert sizes[0] < sizes[1] < 0.001 * NUM_STEPS


def test_a_killed_training_ends_with_the_same_weights(wave_corpus, launcher, tuned, tmp_path):
    command = wave_corpus.command(tmp_path / "exp", *TUNED)
    code, _ = launcher.verb(command, {"module": "wespeaker_lap.engine.journal", "call": 5,
                                      "function": "Journal.log_step", "what": "SIGKILL",
                                      "after": True})
    assert code != 0 and load_last(tmp_path / "exp")["step"] == 4
    code, log = launcher.verb(command)
    assert code == 0, log
    assert weights_of(tmp_path / "exp", 2) == weights_of(tuned, 2)
    assert strip_times(read_steps(tmp_path / "exp")) == strip_times(read_steps(tuned))
    assert load_facts(tmp_path / "exp") == load_facts(tuned)


def test_two_processes_compute_what_one_does(wave_corpus, launcher, tuned, tmp_path):
    """And computing blocks twice changes nothing either."""
    done = launcher.verb_by_two(wave_corpus.command(tmp_path / "exp", *TUNED,
                                                    "train.encoder.checkpointing=true"))
    assert [code for code, _ in done] == [0, 0], done
    one, two = read_metrics(tuned), read_metrics(tmp_path / "exp")
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-3)
    assert two[-1]["valid_eer"] == pytest.approx(one[-1]["valid_eer"], abs=1e-3)


@pytest.fixture(scope="module")
def averaged(tuned):
    verbs.average_model(tuned, 2)
    return tuned


def test_the_folder_is_the_averaged_encoder(averaged):
    """The mean of both epochs; its hash is in the facts."""
    encoder = FrozenSSL.load(averaged / "encoder")
    parts = [encoder_of(averaged, epoch) for epoch in (1, 2)]
    for name, value in encoder.model.state_dict().items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    features = find_features(load_facts(averaged))
    assert features["weights_sha256"] == encoder.weights_sha256
    assert features["encoder"] == "encoder"
    assert load_facts(averaged)["features"]["encoder"] == "wavlm_tiny"


def test_embeddings_are_the_same_from_waves_a_store_and_the_interface(wave_corpus, averaged,
                                                                      tmp_path):
    """The store is of the folder, as a user's stage 2 would name it."""
    data = load_data_dir(wave_corpus.root / "valid")
    utts = sorted(data.wavs)
    data.durations.update({utt: len(read_audio(path)) / 16000 for utt, path in data.wavs.items()})
    computed = read_vectors(embed.embed_set(averaged, data, utts, "train", ALONE))[1]
    config = wave_corpus.config(*TUNED, f"frontend.name={averaged / 'encoder'}")
    extract.extract_feats(build.build_frontend(config.frontend, config.features), data,
                          tmp_path / "feats", "float16", ALONE)
    stored = read_vectors(embed.embed_set(averaged, tmp_path / "feats", utts, "stored", ALONE))[1]
    np.testing.assert_allclose(stored, computed, rtol=1e-3, atol=1e-4)
    alone = load_model(averaged).embed([data.wavs[utt] for utt in utts])
    np.testing.assert_allclose(alone, computed, rtol=1e-3, atol=1e-4)
    first = read_vectors(embed.embed_set(averaged, data, utts, "first", ALONE, "epoch_001"))[1]
    assert np.abs(first - computed).max() > 1e-2


@pytest.fixture
def scored(wave_corpus, averaged, tmp_path):
    """A copy with embeddings of both sets and scores."""
    exp_dir = shutil.copytree(averaged, tmp_path / "scored")
    for name in ("train", "valid"):
        data = load_data_dir(wave_corpus.root / name)
        embed.embed_set(exp_dir, data, sorted(data.wavs), name, ALONE)
    score_trials(ScoringJob(exp_dir, wave_corpus.root / "valid", wave_corpus.root / "valid.kaldi",
                            "train"))
    return exp_dir


def test_a_packed_one_has_its_encoder_once(wave_corpus, scored, tmp_path):
    """Without being asked to; its check has computed the scores again."""
    folder = pack(scored, tmp_path / "packed")
    (tmp_path / "scored").rename(tmp_path / "gone")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["encoder_included"] and manifest["encoder"] == "wavlm_tiny"
    kept = safetensors.torch.load_file(folder / "model.safetensors")
    assert {name.split(".")[0] for name in kept} == {"net", "head"}
    encoder = FrozenSSL.load(folder / "encoder")
    want = find_features(load_facts(tmp_path / "gone"))["weights_sha256"]
    assert encoder.weights_sha256 == want
    card = (folder / "README.md").read_text()
    assert "- Frontend, tuned: wavlm_tiny, 2 layers of 192; included in `encoder/`" in card
    assert want in card
    utts, vectors = read_vectors(tmp_path / "gone" / "embeddings" / "valid" / "xvector.scp")
    wavs = load_data_dir(wave_corpus.root / "valid").wavs
    found = load_model(folder).embed([wavs[utt] for utt in utts])
    np.testing.assert_allclose(found, vectors, rtol=1e-3, atol=1e-4)


def test_an_average_of_before_is_refused(scored):
    """The training went on, so that folder and facts are of a later epoch than the average."""
    path = scored / "models" / "avg_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save({**tensors, SPOILED: tensors[SPOILED] + 1}))
    with pytest.raises(ValueError, match=r"train: embedded with avg_model .* cannot be compared"):
        load_model(scored)
    note_weights(scored / "embeddings" / "train", path)  # as if all was embedded with this average
    with pytest.raises(ValueError, match="weights_sha256 is"):
        load_model(scored)


def test_features_of_the_untuned_encoder_are_refused(wave_corpus, averaged, tmp_path):
    data, config = wave_corpus.data, wave_corpus.config(*TUNED)
    data.durations.update({utt: len(read_audio(path)) / 16000 for utt, path in data.wavs.items()})
    extract.extract_feats(build.build_frontend(config.frontend, config.features), data,
                          tmp_path / "feats", "float16", ALONE)
    with pytest.raises(ValueError, match="weights_sha256 is"):
        embed.embed_set(averaged, tmp_path / "feats", sorted(data.wavs), "x", ALONE)


def test_the_encoder_is_that_of_the_network(wave_corpus, tuned):
    """It comes from the same file: with a spoiled one there the embeddings are others."""
    tensors = safetensors.torch.load(weights_of(tuned, 2))
    assert SPOILED in tensors
    data = load_data_dir(wave_corpus.root / "valid")
    utts, vectors = sorted(data.wavs), []
    for name in ("as_it_is", "spoiled"):
        path = checkpoint.epoch_path(tuned, 2).with_name(f"{name}.safetensors")
        path.write_bytes(safetensors.torch.save(tensors))
        vectors.append(read_vectors(embed.embed_set(tuned, data, utts, name, ALONE, name))[1])
        tensors[SPOILED] = torch.zeros_like(tensors[SPOILED])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@pytest.mark.parametrize(("changes", "complaint"), [
    (("train.encoder={}",), "filter banks have nothing to train"),
    (("frontend={name: wavlm_tiny}", "data.source=features", "train.encoder={}"),
     "an encoder is trained from waveforms"),
])
def test_what_cannot_be_tuned_is_refused(wave_corpus, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        wave_corpus.config(*changes)
