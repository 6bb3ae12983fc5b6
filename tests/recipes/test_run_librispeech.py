"""The LibriSpeech recipe through every stage, on real speech in LibriSpeech's shape.

A few speakers of speechocean762 are laid out as readers, and the very same run.sh is run on them,
with its own configuration but for the encoder and the sizes.
"""

import gzip
import json
from itertools import combinations
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from calling import REPO, Recipe, find_leftovers, list_files

from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.table import invert, read_table

SCRIPT = REPO / "egs" / "librispeech" / "v1" / "run.sh"
# Part -> readers, all with 3 utterances; the first half of the speakers is the corpus's train.
PARTS = {"train-clean-100": range(5), "dev-clean": range(5, 7), "dev-other": range(7, 8),
         "test-clean": range(8, 10), "test-other": range(10, 12)}
SETTINGS = ("frontend.name=wavlm_tiny model.layer_pool.channels=4 model.layer_pool.out_dim=16 "
            "train.epochs=2 train.batch_size=5 train.num_workers=0 score.top_n=4 score.num_avg=2")


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LibriSpeech/ and lists/."""
    root = tmp_path_factory.mktemp("corpora")
    speech = shared / "corpora" / "speechocean762" / "train"
    wavs, genders = read_table(speech / "wav.scp"), read_table(speech / "spk2gender")
    spk2utt = sorted(invert(read_table(speech / "utt2spk")).items())
    rows, utts = [], {}
    for part, numbers in PARTS.items():
        for number in numbers:
            speaker, own = spk2utt[number]
            rows.append(f"{100 + number} | {genders[speaker].upper()} | {part} | 25.0 | A Name\n")
            for place, utt in enumerate(own[:3]):
                name = f"{100 + number}-{7 + place // 2}-{place:04d}"
                path = root / "LibriSpeech" / part / str(100 + number) / name.split("-")[1]
                path.mkdir(parents=True, exist_ok=True)
                soundfile.write(path / f"{name}.flac", *soundfile.read(speech.parent / wavs[utt]))
                utts.setdefault(part.split("-")[0], []).append(name)
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("".join(rows))
    (root / "lists").mkdir()
    for name, kind in (("valid", "dev"), ("test", "test")):
        lines = [f"{a} {b} {'target' if a[:3] == b[:3] else 'nontarget'}\n"
                 for a, b in combinations(utts[kind], 2)]
        (root / "lists" / f"{name}.kaldi.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return root


def make_recipe(corpus: Path, folder: Path) -> Recipe:
    return Recipe(SCRIPT, folder, (
        "--corpus_dir", str(corpus / "LibriSpeech"), "--train_parts", "train-clean-100",
        "--nj", "1", "--device", "cpu", "--overrides", SETTINGS))


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = make_recipe(corpus, tmp_path_factory.mktemp("libri"))
    recipe.run("--lists_dir", corpus / "lists")
    return recipe


def test_every_stage_leaves_its_files(done: Recipe) -> None:
    sizes = {"train": 15, "valid": 9, "test": 12}
    for name, size in sizes.items():
        assert len(read_table(done.data / name / "utt2dur")) == size
        assert len(read_table(done.feats / name / "feats.scp")) == size
    assert list_files(done.data / "valid" / "trials") == {"unipool_valid.kaldi", "valid.kaldi"}
    assert list_files(done.data / "test" / "trials") == {"unipool_test.kaldi"}
    assert list_files(done.exp) >= {
        "models/epoch_002.safetensors", "models/avg_model.safetensors", "RESULTS.md",
        "scores/unipool_test.score", "scores/train_asnorm4_unipool_test.score"}
    steps = [json.loads(line) for line in (done.exp / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "valid_eer" in line] == [3, 6]
    assert find_leftovers(done.folder) == []


def test_the_results(done: Recipe) -> None:
    vectors = {name: dict(kaldiio.load_scp(str(done.exp / "embeddings" / name / "xvector.scp")))
               for name in ("train", "test")}
    mean = np.mean([vector.astype(float) for vector in vectors["train"].values()], axis=0)
    unit = {utt: (v - mean) / np.linalg.norm(v - mean) for utt, v in vectors["test"].items()}
    lines = (done.exp / "scores" / "unipool_test.score").read_text().splitlines()
    for a, b, score, _ in map(str.split, lines):
        assert abs(float(score) - unit[a] @ unit[b]) < 2e-5
    # 4 readers of 3: 12 x 11 / 2 pairs, 4 x 3 of one reader.
    rows = json.loads((done.exp / "results.json").read_text())["rows"]
    assert [(row["trials"], row["norm"], row["num_trials"], row["num_target"]) for row in rows] == [
        ("unipool_test", "none", 66, 12), ("unipool_test", "asnorm", 66, 12),
        ("unipool_test", "qmf", 66, 12)]


def test_without_the_published_lists_some_are_made(corpus: Path, tmp_path: Path) -> None:
    recipe = make_recipe(corpus, tmp_path)
    recipe.run("--stop_stage", "1", "--incomplete_lists", "skip")
    for name, num_target in (("valid", 9), ("test", 12)):
        assert list_files(recipe.data / name / "trials") == {f"{name}.kaldi"}
        trials = read_trials(recipe.data / name / "trials" / f"{name}.kaldi")
        assert trials.num_target == trials.num_nontarget == num_target


def test_no_corpus_is_told(tmp_path: Path) -> None:
    told = Recipe(SCRIPT, tmp_path).fail("--corpus_dir", tmp_path / "absent")
    assert f"{tmp_path}/absent/SPEAKERS.TXT: no such file" in told
    assert "bash run.sh --stage 0 --stop_stage 0" in told and "openslr.org/resources/12" in told
    assert "stage 1 (prepare the data) failed with exit code 1" in told
    assert list(tmp_path.iterdir()) == []
