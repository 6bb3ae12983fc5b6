"""The pre-training recipe from recordings to probed layers, in small; killed and gone on with."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
import torch
from calling import REPO, Recipe, find_leftovers, list_files, read_times

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import invert, read_table, write_table

SCRIPT = REPO / "egs" / "ssl_pretrain" / "v1" / "run.sh"
REAL = REPO.parent / "shared" / "corpora" / "speechocean762"
NUM_STEPS = 6
TINY = ("encoder.conv_layers=[[32,400,160],[16,3,2]] encoder.dim=32 encoder.num_layers=2 "
        "encoder.ff_dim=64 encoder.pos_conv_kernel=8 encoder.pos_conv_groups=4 "
        "encoder.num_buckets=16 encoder.max_distance=40 crops.seconds=0.4 "
        "masked.codebook_size=16 contrastive.layer=1 contrastive.dim=16 train.batch_size=8 "
        "train.front_steps=0 train.valid_steps=3 train.checkpoint_steps=2 "
        "train.precision=float32")


class Pretraining(Recipe):
    """This recipe has no layer features, so no folder for them."""

    def command(self, *options: object) -> list[str]:
        outputs = ("--data", self.data, "--exp_dir", self.exp)
        return ["bash", *map(str, (self.script, *outputs, *self.options, *options))]


def write_sound(path: Path, seed: int) -> None:
    """Noise of a colour, from 0.6 s to 1 s: some is shorter than two crops."""
    rng = np.random.default_rng(seed)
    samples = np.convolve(rng.standard_normal(rng.integers(9600, 16000)), rng.standard_normal(32))
    write_wav(path, 0.02 * samples, 16000)


def plant_corpus(root: Path) -> Path:
    """6 training and 2 test speakers of 3 utterances: real speech where there is some."""
    for part, num_speakers in {"train": 6, "test": 2}.items():
        if REAL.is_dir():
            wavs, utt2spk = (read_table(REAL / part / name) for name in ("wav.scp", "utt2spk"))
            wavs = {utt: str(REAL / wav) for utt, wav in wavs.items()}
        else:
            utt2spk = {f"{part}{s}-{n}": f"{part}{s}" for s in range(num_speakers) for n in "abc"}
            wavs = {utt: str(root / "WAVE" / f"{utt}.wav") for utt in utt2spk}
            for seed, wav in enumerate(wavs.values()):
                write_sound(Path(wav), seed)
        speakers = list(invert(utt2spk).items())[:num_speakers]
        utts = [utt for _, own in speakers for utt in own[:3]]
        for name, table in {"wav.scp": wavs, "utt2spk": utt2spk}.items():
            write_table(root / part / name, {utt: table[utt] for utt in utts})
        write_table(root / part / "spk2gender", {speaker: "m" for speaker, _ in speakers})
    return root


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a folder of unlabelled speech, noises and responses."""
    root = tmp_path_factory.mktemp("sources")
    plant_corpus(root / "corpus")
    for number, name in enumerate(("u1", "u2", "u3", "u4")):
        write_sound(root / "crowd" / f"{name}.wav", 50 + number)
    write_table(root / "crowd" / "wav.scp", {f"u{n}": f"u{n}.wav" for n in range(1, 5)})
    write_table(root / "crowd" / "utt2spk", {"u1": "ann", "u2": "ann"})
    write_sound(root / "extra" / "fan.wav", 60)
    response = 0.5 * np.exp(-np.arange(800) / 100) * np.random.default_rng(0).choice([-1, 1], 800)
    write_wav(root / "extra" / "room.wav", response, 16000)  # 50 ms: shorter than speech may be
    write_table(root / "extra" / "noise.scp", {"fan": "fan.wav"})
    write_table(root / "extra" / "rir.scp", {"room": "room.wav"})
    return root


def options(sources: Path, num_steps: int = NUM_STEPS) -> tuple[str, ...]:
    return ("--corpus_dir", str(sources / "corpus"), "--unlabelled", str(sources / "crowd"),
            "--noise_scp", str(sources / "extra" / "noise.scp"), "--rir_scp",
            str(sources / "extra" / "rir.scp"), "--config", "conf/quick.yaml", "--nj", "1",
            "--device", "cpu", "--overrides", f"{TINY} train.steps={num_steps}")


@pytest.fixture(scope="module")
def done(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """All stages, with copies at another speed, trained by two processes, in a folder with a space
    in its name."""
    folder = tmp_path_factory.mktemp("a user's folder")
    recipe = Pretraining(SCRIPT, folder, (*options(sources), "--speed_factors", "1.1",
                                           "--nproc", "2"))
    recipe.run("--probe_data", recipe.data / "speechocean762")
    return recipe


def test_every_stage_leaves_its_files(done: Recipe, sources: Path) -> None:
    sets = {"speechocean762": 18, "speechocean762_sp": 36, "crowd": 4, "crowd_sp": 8, "noise": 1,
            "rir": 1}
    for name, size in sets.items():
        assert len(load_data_dir(done.data / name).durations) == size
    assert load_data_dir(done.data / "crowd").utt2spk == {"u1": "ann", "u2": "ann", "u3": "u3",
                                                          "u4": "u4"}
    speech, noises, rirs = (PackedAudio(done.data / "pack" / name)
                            for name in ("speech", "noise", "rir"))
    assert sorted(speech.utts) == sorted({**load_data_dir(done.data / "speechocean762_sp").wavs,
                                          **load_data_dir(done.data / "crowd_sp").wavs})
    assert (noises.utts, rirs.utts, rirs.lengths.tolist()) == (["fan"], ["room"], [800])
    assert {"config.yaml", "metrics.jsonl", "models/last.pt", "encoder/config.json",
            "encoder/model.safetensors", "layers/layers.md",
            "layers/layers.json"} <= list_files(done.exp)
    assert find_leftovers(done.folder) == []


def test_nobody_of_the_test_part_is_heard(done: Recipe, sources: Path) -> None:
    test = read_table(sources / "corpus" / "test" / "utt2spk")
    own = load_data_dir(done.data / "speechocean762")
    heard = {utt.split("-", 1)[-1] if utt.startswith("sp1.1-") else utt
             for utt in PackedAudio(done.data / "pack" / "speech").utts}
    assert own.wavs.keys() < heard and not heard & test.keys()
    assert not set(own.speakers) & set(test.values())


def test_the_layers_are_probed(done: Recipe) -> None:
    facts = json.loads((done.exp / "layers" / "layers.json").read_text())
    assert (facts["encoder"]["num_layers"], facts["encoder"]["dim"]) == (3, 32)


def test_the_encoder_is_one_for_the_verification_recipes(done: Recipe, lap: Callable[
        ..., SimpleNamespace], tmp_path: Path) -> None:
    frontend = FrozenSSL.load(str(done.exp / "encoder"))
    assert (frontend.num_layers, frontend.dim, frontend.sample_rate) == (3, 32, 16000)
    data, store = done.data / "speechocean762", tmp_path / "feats"
    made = lap("extract-feats", data, "--out", store, "--device", "cpu", "--set",
               f"frontend.name={done.exp / 'encoder'}")
    assert made.code == 0, made.err
    feats, durations = FeatureStore(store), load_data_dir(data).durations
    assert len(feats) == 18
    for utt, seconds in durations.items():
        stored = feats[utt]
        assert stored.shape[1:] == (3, 32) and np.isfinite(stored).all()
        # Of 400 samples every 160, then of 3 of those every 2.
        assert len(stored) == ((round(16000 * seconds) - 400) // 160 + 1 - 3) // 2 + 1


def test_the_same_again_does_nothing_twice(done: Recipe) -> None:
    places = (done.data / "pack", done.data / "wav_speed", done.exp / "encoder")
    before = read_times(*places)
    done.run("--stop_stage", "3")
    assert read_times(*places) == before


def test_other_data_is_no_continuation(done: Recipe, sources: Path) -> None:
    told = Pretraining(SCRIPT, done.folder, options(sources)).fail("--stage", "2")
    assert f"{done.data}/pack/speech: holds a pack of other data" in told
    assert "stage 2 (pack) failed with exit code 1" in told


def test_killed_and_gone_on_with(done: Recipe, sources: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of stage 3: the encoder is the one of a training left alone."""
    num_steps, encoder = 40, "encoder/model.safetensors"
    weights = []
    for name in ("killed", "alone"):
        recipe = Pretraining(SCRIPT, tmp_path / name, options(sources, num_steps))
        recipe.folder.mkdir()
        (recipe.folder / "data").mkdir()
        (recipe.folder / "data" / "pack").symlink_to(done.data / "pack")
        if name == "killed":
            state = recipe.exp / "models" / "last.pt"
            recipe.kill_when(state.exists, "--stage", "3")
            assert 0 < torch.load(state, weights_only=True)["step"] < num_steps
            assert not (recipe.exp / "encoder").exists()
        told = recipe.run("--stage", "3")
        assert "the layers are not probed" in told.stderr
        weights.append(safetensors.numpy.load_file(recipe.exp / encoder))
        assert find_leftovers(recipe.exp) == []
    assert weights[0].keys() == weights[1].keys()
    for name, values in weights[0].items():
        np.testing.assert_array_equal(values, weights[1][name], err_msg=name)


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path: Path) -> None:
    recipe = Pretraining(SCRIPT, tmp_path, (
        "--corpus_dir", "a corpus", "--unlabelled", "x/one two", "--synthetic_data", "s",
        "--noise_scp", "n.scp", "--probe_data", "p", "--probe_trials", "t"))
    done = recipe.run("--dry_run", "true", "--speed_factors", "0.9 1.1", "--nproc", "2",
                      "--seed", "3")
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    verbs = [words[words.index("wespeaker_lap") + 1:] for words in commands
             if "wespeaker_lap" in words]
    speech = [str(recipe.data / name) for name in ("speechocean762", "one", "two", "synthetic")]
    copies = [f"{path}_sp" for path in speech]
    assert [words[1] for words in verbs if words[0] == "audit-data"] == [
        *speech, str(recipe.data / "noise"), *copies]
    packs = [words for words in verbs if words[0] == "pack-audio"]
    assert packs[0][1:7] == [*copies, "--out", str(recipe.data / "pack" / "speech")]
    assert [words[1] for words in packs[1:]] == [str(recipe.data / "noise")]
    trained, probed = verbs[-2:]
    assert trained[0] == "pretrain" and "--rirs" not in trained
    assert trained[trained.index("--noises") + 1] == str(recipe.data / "pack" / "noise")
    assert trained[trained.index("--set") + 1] == "seed=3"
    assert "torch.distributed.run --standalone --nproc_per_node 2 -m wespeaker_lap pretrain" in (
        done.stdout)
    assert probed[:3] == ["probe-layers", str(recipe.exp / "encoder"), "p"]
    assert probed[-4:-2] == ["--trials", "t"]
    prepared = [words for words in commands if "local/prepare_data.py" in words]
    assert prepared[0][prepared[0].index("--unlabelled") + 1:][:2] == ["x/one", "two"]
    assert prepared[0][prepared[0].index("--corpus_dir") + 1] == "a corpus"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "message"), [
    (["--steps", "3"], "unknown option --steps"),
    (["--corpus_dir", "c", "--overrides", "train.step=3"], "train.step: unknown key; did you mean"),
    ([], "no speech to learn from: give --corpus_dir, --unlabelled or --synthetic_data"),
    (["--stage", "2"], "no speech to learn from"),
    (["--corpus_dir", "nowhere"], "nowhere/train/wav.scp: no such file; --corpus_dir must be"),
    (["--stage", "3"], "data/pack/speech/audio.json: no such file; run 'wespeaker-lap pack-audio'"),
])
def test_a_mistake_is_told_before_any_work(tmp_path: Path, given: list[str], message: str) -> None:
    assert message in Pretraining(SCRIPT, tmp_path).fail(*given)
    assert list(tmp_path.iterdir()) == []
