"""Distillation: a trained system as teacher, its logits by hand, and what it refuses."""

import math
import shutil

import numpy as np
import programs
import pytest
import safetensors.numpy
import torch
from trainings import NO_DROPOUT, read_steps, weights_of, write_store

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.embed import embed_set
from wespeaker_lap.engine.teacher import Teacher
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.vectors import read_vectors

KINDS = ("embedding", "label", "non_target")


@pytest.fixture(scope="module")
def teacher_dir(corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("teacher") / "exp"
    corpus.train(exp_dir)
    checkpoint.average_epochs(exp_dir, 2)
    embed_set(exp_dir, corpus.root / "feats", sorted(corpus.data.wavs), "train", programs.ALONE)
    return exp_dir


def make_teacher(corpus, exp_dir, kind, speakers=None, loss=None, **options) -> Teacher:
    distill = {"name": kind, "teacher": str(exp_dir), "weight": 0.5, "warm_up_epochs": 4, **options}
    config = load_config(overrides=[f"distill={distill}"]).distill
    loss = loss or load_config(exp_dir / "config.yaml").loss
    entries = {utt: utt for utt in corpus.data.utt2spk} | {"noise-x": sorted(corpus.data.wavs)[0]}
    return Teacher(config, entries, "train", speakers or corpus.data.speakers, loss)


def logits_by_hand(exp_dir, utts, classes, scale=30, margin=0.2) -> np.ndarray:
    """`scale` times the cosine of the nearest of two centres, the target's angle wider."""
    _, vectors = read_vectors(exp_dir / "embeddings" / "train" / "xvector.scp", utts)
    path = exp_dir / "models" / "avg_model.safetensors"
    centers = safetensors.numpy.load(path.read_bytes())["head.centers"]
    rows = []
    for vector, target in zip(vectors, classes, strict=True):
        row = []
        for speaker, own in enumerate(centers):
            cosine = max(float(vector @ c / np.linalg.norm(vector) / np.linalg.norm(c))
                         for c in own)
            row.append(scale * (math.cos(math.acos(cosine) + margin) if speaker == target
                                else cosine))
        rows.append(row)
    return np.array(rows)


def divergence_by_hand(teacher: np.ndarray, student: np.ndarray) -> float:
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (teacher, student))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def example(corpus):
    """Three utterances, their classes, and what an untrained student says of them."""
    utts = sorted(corpus.data.wavs)[:3]
    classes = [corpus.data.speakers.index(corpus.data.utt2spk[utt]) for utt in utts]
    rng = np.random.default_rng(0)
    return utts, classes, rng.normal(size=(3, 8)), rng.normal(size=(3, 12))


def test_embeddings_are_compared_by_their_cosine(corpus, teacher_dir):
    utts, classes, embeddings, logits = example(corpus)
    _, own = read_vectors(teacher_dir / "embeddings" / "train" / "xvector.scp", utts)
    want = np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                    for a, b in zip(embeddings, own, strict=True)])
    teacher = make_teacher(corpus, teacher_dir, "embedding")
    got = teacher(utts, torch.tensor(embeddings), torch.tensor(logits), torch.tensor(classes), 1.0)
    assert float(got) == pytest.approx(0.5 * want / 4, rel=1e-5)  # a quarter of the warm-up
    same = teacher(["noise-x"], torch.tensor(embeddings[:1]), torch.tensor(logits[:1]),
                   torch.tensor(classes[:1]), 9.0)
    only = teacher(utts[:1], torch.tensor(embeddings[:1]), torch.tensor(logits[:1]),
                   torch.tensor(classes[:1]), 9.0)
    assert torch.equal(same, only)  # a noisy copy is to be heard as the clean utterance


def test_logits_carry_the_teachers_margin(corpus, teacher_dir):
    utts, classes, embeddings, logits = example(corpus)
    own = logits_by_hand(teacher_dir, utts, classes)
    want = np.mean([4 * divergence_by_hand(a / 2, b / 2) for a, b in zip(own, logits, strict=True)])
    teacher = make_teacher(corpus, teacher_dir, "label", temperature=2.0)
    got = teacher(utts, torch.tensor(embeddings), torch.tensor(logits), torch.tensor(classes), 8.0)
    assert float(got) == pytest.approx(0.5 * want, rel=1e-4)


@pytest.mark.parametrize(("options", "scale", "margin"), [
    ("{name: aam, scale: 32, margin: 0.3}", 32, 0.3),
    ("{name: am, scale: 32, margin: 0.3}", 30, 0.2),  # margins of other kinds cannot be compared
    ("{name: softmax}", 30, 0.2),
])
def test_logits_have_the_students_scale_and_margin(corpus, teacher_dir, options, scale, margin):
    utts, classes, embeddings, logits = example(corpus)
    own = logits_by_hand(teacher_dir, utts, classes, scale, margin)
    want = np.mean([divergence_by_hand(a, b) for a, b in zip(own, logits, strict=True)])
    loss = load_config(overrides=[f"loss={options}"]).loss
    teacher = make_teacher(corpus, teacher_dir, "label", loss=loss)
    got = teacher(utts, torch.tensor(embeddings), torch.tensor(logits), torch.tensor(classes), 8.0)
    assert float(got) == pytest.approx(0.5 * want, rel=1e-4)


def test_embeddings_and_classifier_are_of_the_same_weights(corpus, teacher_dir, tmp_path):
    exp_dir = tmp_path / "exp"
    shutil.copytree(teacher_dir, exp_dir)
    embed_set(exp_dir, corpus.root / "feats", sorted(corpus.data.wavs), "train", programs.ALONE,
              "epoch_001")
    with pytest.raises(ValueError, match=r"train: embedded with epoch_001 .*: avg_model \("):
        make_teacher(corpus, exp_dir, "label")


@pytest.fixture(scope="module")
def crop_net(teacher_dir):
    """The teacher's network and classifier, by hand; and its frames a second."""
    config = load_config(teacher_dir / "config.yaml")
    weights = teacher_dir / "models" / "avg_model.safetensors"
    net, head = build.build_net(config.model, 3, 8), build.build_head(config.loss, 8, 12)
    checkpoint.load_net(weights, net)
    checkpoint.load_net(weights, head, "head")
    head.top_k = 0
    return net.eval(), head, 16000 / 320


def test_a_teacher_of_crops_hears_what_the_student_does(corpus, teacher_dir, crop_net):
    """An utterance that is shorter than the crop is heard once; a noisy copy as the clean one."""
    utts, classes, _, logits = example(corpus)
    utts[2] = "noise-x"
    net, head, rate = crop_net
    store = FeatureStore(corpus.root / "feats")
    spans = [(2 / rate, 5 / rate), (0.0, store.num_frames(utts[1]) / rate), (1 / rate, 4 / rate)]
    heard = [store.read(utts[0])[2:7], store.read(utts[1]), store.read(utts[0])[1:5]]
    speakers = torch.tensor([classes[0], classes[1], classes[0]])
    with torch.no_grad():
        own = torch.cat([net(torch.from_numpy(feats)[None]) for feats in heard])
        wanted = head(own, speakers)[1].double().numpy()
    want = np.mean([divergence_by_hand(a, b) for a, b in zip(wanted, logits, strict=True)])
    teacher = make_teacher(corpus, teacher_dir, "label", feats=str(corpus.root / "feats"))
    teacher.train()  # as the student's objective does
    got = teacher(utts, torch.zeros(3, 8), torch.tensor(logits), speakers, 8.0, spans)
    assert float(got) == pytest.approx(0.5 * want, rel=1e-4)
    torch.testing.assert_close(teacher.hearing(utts, spans), own, rtol=1e-4, atol=1e-5)


def test_a_crop_at_the_end_stays_in_the_utterance(corpus, teacher_dir):
    teacher = make_teacher(corpus, teacher_dir, "label", feats=str(corpus.root / "feats"))
    utt = sorted(corpus.data.wavs)[0]
    total = teacher.hearing.store.num_frames(utt)
    assert teacher.hearing.find_frames(utt, ((total - 3.4) / 50, 4 / 50)) == (utt, total - 4, 4)
    assert teacher.hearing.find_frames(utt, (0.0, 99.0)) == (utt, 0, total)
    assert teacher.hearing.find_frames(utt, (0.0, 0.001)) == (utt, 0, 1)


def test_a_student_of_crops_trains_the_same_on_two_processes(corpus, launcher, teacher_dir,
                                                             tmp_path):
    settings = ("train.epochs=1", *NO_DROPOUT,
                f"distill={{name: non_target, teacher: {teacher_dir}, warm_up_epochs: 0, "
                f"feats: {corpus.root / 'feats'}}}")
    corpus.train(tmp_path / "one", *settings)
    done = launcher.verb_by_two(corpus.command(tmp_path / "two", *settings))
    assert [code for code, _ in done] == [0, 0], done
    one, two = read_steps(tmp_path / "one"), read_steps(tmp_path / "two")
    assert all(record["distillation"] > 0 for record in one)
    for name in ("loss", "distillation"):
        np.testing.assert_allclose([r[name] for r in two], [r[name] for r in one], rtol=1e-3)
    tensors = safetensors.numpy.load(weights_of(tmp_path / "one", 1))
    assert {name.partition(".")[0] for name in tensors} == {"net", "head"}


def test_stores_that_a_teacher_cannot_hear_are_refused(corpus, teacher_dir, tmp_path):
    write_store(tmp_path / "other", dict.fromkeys(corpus.data.wavs, "x"), 0, encoder="another")
    with pytest.raises(ValueError, match="encoder"):
        make_teacher(corpus, teacher_dir, "label", feats=str(tmp_path / "other"))
    write_store(tmp_path / "part", dict.fromkeys(sorted(corpus.data.wavs)[1:], "x"), 0)
    with pytest.raises(ValueError, match=sorted(corpus.data.wavs)[0]):
        make_teacher(corpus, teacher_dir, "label", feats=str(tmp_path / "part"))


def test_speakers_are_mapped_by_name(corpus, teacher_dir):
    """A student that counts the speakers from the last one, and knows but ten."""
    utts, classes, embeddings, _ = example(corpus)
    names = corpus.data.speakers[::-1][2:]
    chosen = [corpus.data.speakers.index(name) for name in names]
    logits = np.random.default_rng(1).normal(size=(3, 10))
    own = logits_by_hand(teacher_dir, utts, classes)[:, chosen]
    want = np.mean([divergence_by_hand(a, b) for a, b in zip(own, logits, strict=True)])
    teacher = make_teacher(corpus, teacher_dir, "label", names)
    labels = torch.tensor([chosen.index(c) for c in classes])
    got = teacher(utts, torch.tensor(embeddings), torch.tensor(logits), labels, 8.0)
    assert float(got) == pytest.approx(0.5 * want, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_like_its_teacher_is_at_no_distance(corpus, teacher_dir, kind):
    """Though its own loss has the inter-top-K penalty, which no teacher's logits have."""
    head = build.build_head(load_config(teacher_dir / "config.yaml").loss, 8, 12)
    checkpoint.load_net(teacher_dir / "models" / "avg_model.safetensors", head, "head")
    utts = sorted(corpus.data.wavs)[:20]
    _, vectors = read_vectors(teacher_dir / "embeddings" / "train" / "xvector.scp", utts)
    embeddings = torch.from_numpy(vectors)
    labels = torch.tensor([corpus.data.speakers.index(corpus.data.utt2spk[utt]) for utt in utts])
    _, logits = head(embeddings, labels)
    assert head.top_k == 2 and head.top_k_penalty > 0
    distance = make_teacher(corpus, teacher_dir, kind)(utts, embeddings, logits, labels, 8.0)
    assert float(distance.detach()) == pytest.approx(0, abs=1e-5)


def test_unknown_speakers_and_sets_are_named(corpus, teacher_dir, tmp_path):
    with pytest.raises(ValueError, match=r"1 of the student's 2 speakers are unknown.*: somebody"):
        make_teacher(corpus, teacher_dir, "label", [corpus.data.speakers[0], "somebody"])
    with pytest.raises(FileNotFoundError, match="run its stages 3 and 4 with --train_set train"):
        make_teacher(corpus, tmp_path, "label", loss=load_config().loss)


def test_embeddings_of_another_size_are_refused_before_anything_is_written(corpus, teacher_dir,
                                                                           tmp_path):
    with pytest.raises(ValueError, match=r"set model\.embed_dim=8"):
        corpus.train(tmp_path / "exp", "model.embed_dim=6",
                     f"distill={{name: embedding, teacher: {teacher_dir}}}")
    assert not (tmp_path / "exp" / "config.yaml").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_trains(corpus, teacher_dir, tmp_path, kind):
    corpus.train(tmp_path / "exp", "train.epochs=2", "loss.top_k=0",
                 f"distill={{name: {kind}, teacher: {teacher_dir}, warm_up_epochs: 1}}")
    records = read_steps(tmp_path / "exp")
    assert "distillation" not in records[0]  # the weight begins at 0
    assert all(record["distillation"] > 0 for record in records[1:])
    tensors = safetensors.numpy.load(weights_of(tmp_path / "exp", 2))
    assert {name.partition(".")[0] for name in tensors} == {"net", "head"}
