"""The VoxCeleb recipe through every stage, on real speech in VoxCeleb's shape.

VoxCeleb itself cannot be had here: a few speakers of speechocean762 are laid out in its trees
(VoxCeleb1 as wav, VoxCeleb2 as m4a, the official names of lists and metadata), and the very same
run.sh is run on them, with the packaged encoder. On the way it is killed in two stages.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from calling import REPO, Recipe, find_leftovers, list_files, read_times

from wespeaker_lap.data.convert import find_ffmpeg
from wespeaker_lap.io.table import invert, read_table

SCRIPT = REPO / "egs" / "voxceleb" / "v1" / "run.sh"
# VoxCeleb1: 4 speakers of 3. VoxCeleb2: 10 of 4, of whom 4 are held back, and one of the test part.
NUM_VOX1, NUM_VOX2 = 4, 11
EPOCHS, STEPS = 4, 6  # batches of 4 from 24 utterances
SETTINGS = (f"frontend.name=wavlm_tiny model.layer_pool.num_heads=8 train.epochs={EPOCHS} "
            "train.batch_size=4 train.checkpoint_steps=1 train.num_workers=0 score.top_n=4 "
            "score.num_avg=2")


def plant_speech(root: Path, corpus: Path, part: str, speakers: int, utts: int,
                 name: Callable[[int, int], str]) -> dict[str, str]:
    """Lay out the first speakers of a part of speechocean762; returns speaker -> gender."""
    wavs = read_table(corpus / part / "wav.scp")
    genders = read_table(corpus / part / "spk2gender")
    planted = {}
    spk2utt = invert(read_table(corpus / part / "utt2spk"))
    for number, (speaker, own) in enumerate(sorted(spk2utt.items())[:speakers]):
        for utt_number, utt in enumerate(sorted(own)[:utts]):
            path = root / name(number, utt_number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".wav":
                soundfile.write(path, *soundfile.read(corpus / wavs[utt]))
            else:
                subprocess.run([find_ffmpeg(), "-v", "error", "-i", corpus / wavs[utt], "-c:a",
                                "aac", path], check=True)
        planted[name(number, 0).split("/")[-3]] = genders[speaker]
    return planted


def name_vox1(speaker: int, utt: int) -> str:
    """As VGG hands it out: the test part's four speakers begin at id10270."""
    return f"vox1/wav/id1027{speaker}/5r0dWxy17C{speaker}/{utt + 1:05d}.wav"


def name_vox2(speaker: int, utt: int) -> str:
    """Two utterances from each video."""
    return f"vox2/dev/aac/id{speaker:05d}/21Uxsk56VD{utt // 2}/{utt % 2 + 1:05d}.m4a"


def write_lists(folder: Path) -> None:
    """The original and the cleaned Vox1-O, in small."""
    utts = [name_vox1(s, u).removeprefix("vox1/wav/") for s in range(NUM_VOX1) for u in range(3)]
    lines = [f"{int(a[:7] == b[:7])} {a} {b}" for a, b in combinations(utts, 2)]
    folder.mkdir()
    for file, kept in (("veri_test.txt", lines), ("veri_test2.txt", lines[:-5])):
        (folder / file).write_text("\n".join(kept) + "\n")


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vox1/, vox2/, lists/, musan/ and rirs/."""
    root = tmp_path_factory.mktemp("corpora")
    speech = shared / "corpora" / "speechocean762"
    vox1 = plant_speech(root, speech, "test", NUM_VOX1, 3, name_vox1)
    vox2 = plant_speech(root, speech, "train", NUM_VOX2, 4, name_vox2)
    write_lists(root / "lists")
    table = "".join(f"{s}\tA._Name\t{g}\tIreland\ttest\n" for s, g in vox1.items())
    (root / "vox1" / "vox1_meta.csv").write_text(
        f"VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n{table}")
    last = max(vox2)
    table = "".join(f"{s} ,n0 ,{g} ,{'test' if s == last else 'dev'} \n" for s, g in vox2.items())
    (root / "vox2" / "vox2_meta.csv").write_text(
        f"VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \n{table}")
    for kind, folder in (("noise", "musan/noise/free-sound"), ("rir", "rirs/simulated_rirs/room")):
        (root / folder).mkdir(parents=True)
        for path in sorted((shared / "corpora" / "noise_rir" / kind).glob("*.flac"))[:3]:
            shutil.copy(path, root / folder)
    return root


@pytest.fixture(scope="module")
def recipe(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("vox")
    options = [word for name in ("vox1", "vox2", "musan", "rirs", "lists")
               for word in (f"--{name}_dir", corpus / name)]
    return Recipe(SCRIPT, folder, (
        *map(str, options), "--wav_dir", str(folder / "converted"), "--num_valid_speakers", "4",
        "--nj", "1", "--device", "cpu", "--overrides", SETTINGS))


@pytest.fixture(scope="module")
def killed(recipe: Recipe) -> Recipe:
    """Killed while the first store is written, taken up, killed in the middle of an epoch."""
    store, models = recipe.feats / "vox2_dev", recipe.exp / "models"
    recipe.kill_when((store / ".feats.00000.ark.tmp").exists)
    assert not (store / "feats.scp").exists()
    recipe.kill_when((models / "last.pt").exists, "--stage", "2")
    assert not (models / f"epoch_{EPOCHS:03d}.safetensors").exists()
    return recipe


@pytest.fixture(scope="module")
def done(killed: Recipe) -> Recipe:
    """All stages; after the kills it goes on with two processes where training had one."""
    killed.run("--stage", "2", "--nproc", "2")
    return killed


def test_the_sets(done: Recipe) -> None:
    names = ("vox1", "vox2_dev", "valid")
    sets = {name: read_table(done.data / name / "utt2spk") for name in names}
    assert {name: len(utt2spk) for name, utt2spk in sets.items()} == {
        "vox1": 12, "vox2_dev": 24, "valid": 16}
    speakers = {name: set(utt2spk.values()) for name, utt2spk in sets.items()}
    assert len(speakers["vox2_dev"]) == 6 and len(speakers["valid"]) == 4
    assert speakers["vox2_dev"] | speakers["valid"] == {f"id0000{n}" for n in range(10)}
    assert "id10270/5r0dWxy17C0/00001.wav" in sets["vox1"]
    for name in sets:
        assert list_files(done.data / name) >= {"wav.scp", "utt2spk", "spk2utt", "utt2dur",
                                                "spk2gender"}
    converted = read_table(done.data / "vox2_dev" / "wav.scp").values()
    assert all(Path(path).is_relative_to(done.folder / "converted") for path in converted)
    assert soundfile.info(next(iter(converted))).samplerate == 16000
    assert len(read_table(done.data / "musan" / "wav.scp")) == 3
    assert len(read_table(done.data / "rirs" / "wav.scp")) == 3


def test_the_trial_lists(done: Recipe, corpus: Path) -> None:
    assert list_files(done.data / "vox1" / "trials") == {"vox1_O.kaldi", "vox1_O_cleaned.kaldi"}
    assert list_files(done.data / "valid" / "trials") == {"valid.kaldi"}
    words = {"1": "target", "0": "nontarget"}
    for name, file in (("vox1_O", "veri_test.txt"), ("vox1_O_cleaned", "veri_test2.txt")):
        official = [line.split() for line in (corpus / "lists" / file).read_text().splitlines()]
        written = (done.data / "vox1" / "trials" / f"{name}.kaldi").read_text().splitlines()
        assert written == [f"{a} {b} {words[label]}" for label, a, b in official]


def test_every_stage_leaves_its_files(done: Recipe) -> None:
    for name in ("vox1", "vox2_dev", "valid"):
        assert list_files(done.feats / name) >= {"feats.json", "feats.scp", "feats.00000.ark",
                                                 "utt2num_frames"}
        assert read_table(done.feats / name / "feats.scp").keys() == read_table(
            done.data / name / "wav.scp").keys()
    for name in ("vox1", "vox2_dev"):
        means = {"spk_xvector.ark", "spk_xvector.scp"} if name == "vox2_dev" else set()
        assert list_files(done.exp / "embeddings" / name) == {"xvector.ark", "xvector.scp",
                                                              "mean_vec.npy", "weights.json",
                                                              *means}
    epochs = {f"models/epoch_{n:03d}.safetensors" for n in range(1, EPOCHS + 1)}
    lists = ("vox1_O", "vox1_O_cleaned")
    scores = {f"scores/{stem}{name}.score" for name in lists for stem in ("", "vox2_dev_asnorm4_",
                                                                     "vox2_dev_asnorm4_qmf_")}
    assert list_files(done.exp) >= {*epochs, *scores, "config.yaml", "train.log", "metrics.jsonl",
                                    "models/last.pt", "models/avg_model.safetensors", "det.png",
                                    "RESULTS.md", "results.json", "bundle/manifest.json"}
    assert find_leftovers(done.folder) == []


def test_the_killed_training_was_gone_on_with(done: Recipe) -> None:
    told = (done.exp / "train.log").read_text()
    assert "1 process(es)" in told and "from the start" in told
    assert "2 process(es)" in told and "from step" in told
    steps = [json.loads(line) for line in (done.exp / "metrics.jsonl").read_text().splitlines()]
    ends = [line["step"] for line in steps if "valid_eer" in line]
    assert ends == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]


def test_features_and_embeddings_are_kaldi_files(done: Recipe) -> None:
    store = kaldiio.load_scp(str(done.feats / "vox1" / "feats.scp"))
    frames = read_table(done.feats / "vox1" / "utt2num_frames")
    for utt, count in frames.items():
        assert store[utt].shape == (int(count), 7, 192)
    vectors = kaldiio.load_scp(str(done.exp / "embeddings" / "vox1" / "xvector.scp"))
    assert {vector.shape for vector in vectors.values()} == {(192,)}


def test_scores_are_those_of_the_embeddings(done: Recipe) -> None:
    vectors = {name: dict(kaldiio.load_scp(str(done.exp / "embeddings" / name / "xvector.scp")))
               for name in ("vox1", "vox2_dev")}
    mean = np.mean([vector.astype(float) for vector in vectors["vox2_dev"].values()], axis=0)
    unit = {utt: (v - mean) / np.linalg.norm(v - mean) for utt, v in vectors["vox1"].items()}
    cohort = []
    for utts in invert(read_table(done.data / "vox2_dev" / "utt2spk")).values():
        centre = np.mean([vectors["vox2_dev"][utt].astype(float) - mean for utt in utts], axis=0)
        cohort.append(centre / np.linalg.norm(centre))
    top = {utt: np.sort(np.array(cohort) @ vector)[-4:] for utt, vector in unit.items()}
    raw, normed = ((done.exp / "scores" / f"{stem}vox1_O.score").read_text().splitlines()
                   for stem in ("", "vox2_dev_asnorm4_"))
    assert len(raw) == len(normed) == 66
    for raw_line, normed_line in zip(raw, normed, strict=True):
        a, b, score, label = raw_line.split()
        cosine = unit[a] @ unit[b]
        assert abs(float(score) - cosine) < 2e-5
        wanted = np.mean([(cosine - top[x].mean()) / top[x].std() for x in (a, b)])
        assert normed_line.split()[:2] == [a, b] and normed_line.split()[3] == label
        assert abs(float(normed_line.split()[2]) - wanted) < 2e-3 * max(1, abs(wanted))


def test_the_report(done: Recipe) -> None:
    results = json.loads((done.exp / "results.json").read_text())
    assert [(row["trials"], row["norm"], row["num_trials"], row["num_target"], row["coverage"],
             row["cohort"], row["cohort_size"], row["top_n"]) for row in results["rows"]] == [
        ("vox1_O", "none", 66, 12, 1, None, None, None),
        ("vox1_O", "asnorm", 66, 12, 1, "vox2_dev", 6, 4),
        ("vox1_O", "qmf", 66, 12, 1, "vox2_dev", 6, 4),
        ("vox1_O_cleaned", "none", 61, 9, 1, None, None, None),
        ("vox1_O_cleaned", "asnorm", 61, 9, 1, "vox2_dev", 6, 4),
        ("vox1_O_cleaned", "qmf", 61, 9, 1, "vox2_dev", 6, 4)]
    assert results["encoder"] == "wavlm_tiny" and results["mean_subtraction"] == "vox2_dev"
    page = (done.exp / "RESULTS.md").read_text()
    assert "vox1_O_cleaned" in page and f"{results['rows'][0]['eer']:.3f}" in page


def test_a_second_run_does_nothing_anew(done: Recipe) -> None:
    before = {path: at for path, at in read_times(done.feats, done.exp / "models").items()
              if path.suffix in (".ark", ".pt", ".safetensors")}
    assert len(before) == 3 + 1 + EPOCHS + 1
    told = done.run("--stage", "2", "--stop_stage", "3").stderr
    assert "0 of 1 shards to do" in told and "the training is finished" in told
    after = read_times(done.feats, done.exp / "models")
    assert {path: after[path] for path in before} == before


def test_trials_without_an_embedding(done: Recipe) -> None:
    exp = shutil.copytree(done.exp, done.folder / "exp_with_a_gap")
    scp = exp / "embeddings" / "vox1" / "xvector.scp"
    lines = scp.read_text().splitlines(keepends=True)
    scp.write_text("".join(lines[1:]))
    options = ("--exp_dir", exp, "--stage", "5", "--stop_stage", "5", "--trials", "vox1_O_cleaned")
    assert "id10270/5r0dWxy17C0/00001.wav" in done.fail(*options)
    told = done.run(*options, "--missing", "skip")
    row = json.loads((exp / "scores" / "vox1_O_cleaned.json").read_text())
    # Of the 61 trials 11 are with the first of the 12 utterances, 2 of them target ones.
    assert (row["num_trials"], row["num_target"]) == (50, 7)
    assert row["coverage"] == pytest.approx(50 / 61)
    assert "coverage 81.97 %" in told.stderr


# --- what a user without the corpus is told -------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--vox1_dir and --vox2_dir are needed. The audio cannot be downloaded automatically"),
        (["--vox1_dir", "nowhere", "--vox2_dir", "nowhere"], "no official trial list in"),
    ],
)
def test_no_corpus_is_told(tmp_path: Path, options: list[str], message: str) -> None:
    told = Recipe(SCRIPT, tmp_path).fail(*options)
    assert message in told
    assert "stage 1 (prepare the data) failed with exit code" in told
    assert list(tmp_path.iterdir()) == []
