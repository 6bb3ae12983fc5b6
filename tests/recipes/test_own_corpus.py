"""A corpus of one's own, as docs/pages/recipes.md explains it: prepare_data.py, a short run.sh."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from calling import REPO, list_files, make_environment

from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.table import read_table

PREPARE = '''\
import argparse
from pathlib import Path

from wespeaker_lap.data.datadir import split_by_speaker, write_data_dir

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path)
parser.add_argument("--corpus_dir", type=Path)
args, _ = parser.parse_known_args()


def write_set(name, wavs):
    write_data_dir(args.data / name, {wav.stem: str(wav.resolve()) for wav in wavs},
                   {wav.stem: wav.parent.name for wav in wavs})


wavs = {wav.stem: wav for wav in sorted(args.corpus_dir.glob("train/*/*.wav"))}
kept, held_back = split_by_speaker({utt: wav.parent.name for utt, wav in wavs.items()}, 2, seed=1)
write_set("train", [wavs[utt] for utt in kept])
write_set("valid", [wavs[utt] for utt in held_back])
write_set("test", sorted(args.corpus_dir.glob("test/*/*.wav")))
'''


def read_run_script() -> str:
    """The run.sh that the page on recipes shows for a corpus of one's own."""
    page = (REPO / "docs" / "pages" / "recipes.md").read_text(encoding="utf-8")
    section = page.split("write `egs/<corpus>/v1/local/prepare_data.py`")[1]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds of 6 speakers of 12, one of which cannot be decoded."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for speaker in ("train/ann", "train/ben", "train/cyd", "train/dot", "test/eve", "test/fay"):
        for number in range(12):
            path = folder / speaker / f"{Path(speaker).name}-{number:02d}.wav"
            write_wav(path, 0.1 * rng.standard_normal(6400), 16000)
    (folder / "test" / "eve" / "eve-03.wav").write_bytes(b"RIFF")
    return folder


def test_it_works_as_the_page_says(corpus: Path, tmp_path: Path) -> None:
    """Outside egs, so the script's paths lead to this checkout; called from somewhere else."""
    recipe = tmp_path / "my corpus"
    (recipe / "local").mkdir(parents=True)
    (recipe / "local" / "prepare_data.py").write_text(PREPARE)
    script = read_run_script()
    assert len(script.splitlines()) == 5
    script = script.replace("../../", f"{REPO}/egs/")
    own = "corpus_dir=\nPREPARE_OPTIONS=(corpus_dir)\n"
    (recipe / "run.sh").write_text(script.replace("run_stages", own + "run_stages"))
    done = subprocess.run(
        ["bash", recipe / "run.sh", "--corpus_dir", corpus, "--stop_stage", "2", "--nj", "1",
         "--device", "cpu"],
        cwd=corpus, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    for name, num_utts in (("train", 24), ("valid", 24), ("test", 23)):
        utt2spk = read_table(recipe / "data" / name / "utt2spk")
        assert (len(set(utt2spk.values())), len(utt2spk)) == (2, num_utts)
        store = recipe / "feats" / "wavlm_tiny" / name
        assert read_table(store / "feats.scp").keys() == utt2spk.keys()
    rejected, = (recipe / "data" / "test" / "rejects.tsv").read_text().splitlines()
    assert "eve-03" in rejected
    assert "23 utterances" in done.stderr and "1 rejected" in done.stderr
    # 12 * 11 / 2 and 11 * 10 / 2 target pairs, and as many of the 132 non-target ones.
    trials = (recipe / "data" / "test" / "trials" / "test.kaldi").read_text().splitlines()
    labels = [line.split()[2] for line in trials]
    assert (labels.count("target"), labels.count("nontarget")) == (121, 121)
    assert "trials" not in {path.name for path in (recipe / "data" / "train").iterdir()}
    assert len(list_files(corpus)) == 72
