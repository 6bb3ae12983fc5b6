"""The report page: its numbers, what is in it, what must never be in it."""

import base64
import io
import json
import re
import shutil
from itertools import pairwise

import html5lib
import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score.scorefile import read_scores, write_scores
from wespeaker_lap.score.stages import ScoringJob, normalise_trials
from wespeaker_lap.share.page import write_page
from wespeaker_lap.share.report import write_report


@pytest.fixture(scope="module")
def reported(tiny_system, tmp_path_factory):
    """Cosine and AS-norm scores with their results.json; must not be changed."""
    path = shutil.copytree(tiny_system.exp_dir, tmp_path_factory.mktemp("page") / "lap-é")
    job = ScoringJob(path, tiny_system.data("test"), tiny_system.trials, "train")
    normalise_trials(job, tiny_system.data("train"), "asnorm", 3)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(reported, tiny_system):
    """The page with data and players: its text and its tree."""
    return write([reported], [tiny_system.data("train")], [tiny_system.data("test")])


@pytest.fixture
def exp_dir(reported, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(reported, tmp_path / "lap-é")


def write(exp_dirs, *args):
    """Write the page of folders that were reported: its text and its tree."""
    text = write_page(exp_dirs[0] / "report.html", exp_dirs, *args).read_text(encoding="utf-8")
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    return text, tree


def words(element):
    return " ".join("".join(element.itertext()).split())


def read_tables(tree):
    """Caption of each table -> its rows of cells, without the heads."""
    return {box.get("aria-label"): [[words(cell) for cell in row]
                                    for row in box.iter("tr")][1:]
            for box in tree.iter("div") if box.get("class") == "scroll"}


def test_numbers_are_those_of_results_json(page, reported):
    _, tree = page
    rows = json.loads((reported / "results.json").read_text(encoding="utf-8"))["rows"]
    tables = read_tables(tree)
    assert len(tables["Results"]) == len(rows) == 2
    for row, cells, about in zip(rows, tables["Results"], tables["Trial lists"], strict=True):
        low, high = row["eer_ci"]
        assert cells[:7] == ["lap-é", "pairs", {"none": "cosine", "asnorm": "AS-norm"}[row["norm"]],
                             f"{row['eer']:.3f}", f"[{low:.3f}, {high:.3f}]",
                             f"{row['min_dcf']:.3f}", f"{row['threshold']:.5f}"]
        cohort = "train, 4 speakers, top 3" if row["norm"] == "asnorm" else "none"
        assert about[3:] == ["36", "18", "18", "100.00 %", cohort, row["trials_sha256"]]
    text = words(tree)
    assert "95 %, 1000 resamples of speakers. minDCF: p_target 0.01," in text
    for row, norm in zip(rows, ("cosine", "AS-norm"), strict=True):
        assert text.count(f"lap-é, {norm}: EER {row['eer']:.3f} %") == 1
        assert (f"18 non-target and 18 target trials; EER {row['eer']:.3f} % at "
                f"{row['threshold']:.3f} (dashed), minDCF {row['min_dcf']:.3f}") in text


def test_the_threshold_of_min_dcf_costs_what_it_says(page, reported):
    _, tree = page
    costs = []
    for cells, name in zip(read_tables(tree)["Results"], ("pairs", "train_asnorm3_pairs"),
                           strict=True):
        trials, scores = read_scores(reported / "scores" / f"{name}.score")
        threshold = np.inf if cells[7] == "reject all" else float(cells[7])
        accepted = scores >= threshold
        miss = np.mean(~accepted[trials.labels])
        alarm = np.mean(accepted[~trials.labels])
        costs.append((f"{(0.01 * miss + 0.99 * alarm) / 0.01:.3f}", cells[5]))
    assert all(found == said for found, said in costs), costs


def test_nothing_is_fetched_and_nothing_runs(page):
    text, tree = page
    assert not re.search(r"https?://|[\"'(]//|@import|url\((?!#)|<script|<link|<iframe|<object",
                         text, re.IGNORECASE)
    assert all(source.startswith("data:") for element in tree.iter()
               for name in ("src", "srcset", "data", "poster")
               if (source := element.get(name)) is not None)
    targets = [element.get("href") for element in tree.iter("a")]
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert targets and {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(ids) == len(set(ids))  # those of the figures' markers and clips, too
    assert not any(name.startswith("on") for element in tree.iter() for name in element.attrib)
    assert "default-src 'none'" in text


def test_it_can_be_read_without_seeing(page):
    _, tree = page
    assert tree.get("lang") == "en" and words(tree.find(".//title")).endswith("lap-é")
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    figures = [element for element in tree.iter() if str(element.tag).endswith("svg")]
    assert len(figures) == 1 + 2 + 3  # DET; two histograms; loss, accuracy, rate
    assert all(figure.get("role") == "img" and len(figure.get("aria-label")) > 20
               for figure in figures)


def test_ids_are_escaped(exp_dir, tiny_system, tmp_path):
    """Ids may hold anything but white space, and so may the names of folders."""
    evil, attribute = "<script>alert('1')</script>", "\"onload='x'&amp;$x^"
    trials, scores = read_scores(exp_dir / "scores" / "pairs.score")
    names = {"x/录音-0": evil, "y/录音-0": attribute}
    new = Trials([names.get(utt, utt) for utt in trials.enroll],
                 [names.get(utt, utt) for utt in trials.test], trials.labels)
    scores = np.where(np.isin(new.enroll, list(names.values())),
                      np.where(trials.labels, -9, 9), scores)
    write_scores(exp_dir / "scores" / "pairs.score", new, scores)
    data = load_data_dir(tiny_system.data("test"))
    write_data_dir(tmp_path / "data<b>", {names.get(utt, utt): wav
                                          for utt, wav in data.wavs.items()},
                   {names.get(utt, utt): f"<i>{speaker}" for utt, speaker in data.utt2spk.items()})
    folder = exp_dir.rename(tmp_path / "lap <u>&$^")
    write_report(folder)
    text, tree = write([folder], [], [tmp_path / "data<b>"])
    assert not any(mark in text for mark in ("<script", "<i>", "<b>", "<u>"))
    shown = {words(element) for element in tree.iter("span") if element.get("class") == "id"}
    assert {evil, attribute} <= shown
    assert words(tree.find(".//h1")) == "Speaker verification: lap <u>&$^"
    assert all(set(element.keys()) == {"controls", "preload", "src", "aria-label"}
               for element in tree.iter("audio"))


def test_worst_trials(page, reported):
    _, tree = page
    trials, scores = read_scores(reported / "scores" / "pairs.score")
    ranked = sorted(zip(scores, trials.enroll, trials.test, trials.labels, strict=True))
    worst = {"Non-target": [one for one in ranked[::-1] if not one[3]][:10],
             "Target": [one for one in ranked if one[3]][:10]}
    details = [element for element in tree.iter("details")
               if words(element.find("summary")) == "lap-é: pairs, cosine"]
    assert len(details) == 1
    for caption, rows in read_tables(details[0]).items():
        want = worst[caption.split()[0]]
        assert [row[0] for row in rows] == [f"{one[0]:.5f}" for one in want]
        for row in rows:  # an id of the test set begins with its speaker
            assert [row[0], *(cell.split() for cell in row[1:])] in [
                [f"{score:.5f}", [enroll, enroll[0]], [test, test[0]]]
                for score, enroll, test, _ in want]


def test_players_hold_the_recordings(page, reported, tiny_system, tmp_path):
    _, tree = page
    players = list(tree.iter("audio"))
    assert len(players) == 2 * 2 * 10 * 2  # score files, kinds, trials, sides
    wavs = load_data_dir(tiny_system.data("test")).wavs
    player = players[0]
    kind, content = player.get("src").split(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    original, _ = soundfile.read(wavs[player.get("aria-label").removeprefix("Recording ")])
    assert kind == "data:audio/mpeg" and rate == 16000
    assert len(samples) == pytest.approx(len(original), abs=2400)  # MP3 comes in whole frames
    assert np.sqrt(np.mean(samples ** 2)) == pytest.approx(np.sqrt(np.mean(original ** 2)), rel=0.2)
    with pytest.raises(ValueError, match=r"train: holds no recording of the worst trials; give"):
        write_page(tmp_path / "a.html", [reported], [], [tiny_system.data("train")])
    assert not list(tmp_path.iterdir())


def test_several_systems_on_one_page(exp_dir, tiny_system, tmp_path):
    others = [shutil.copytree(exp_dir, tmp_path / name) for name in ("lap-é-seed2", "sum")]
    config = (others[0] / "config.yaml").read_text()
    (others[0] / "config.yaml").write_text(config.replace("seed: 42", "seed: 2"))
    facts = json.loads((others[0] / "scores" / "pairs.json").read_text())
    (others[0] / "scores" / "pairs.json").write_text(json.dumps(
        {**facts, "eer": facts["eer"] + 3, "min_dcf": 0.5}))
    for other in others:
        write_report(other)
    text, tree = write([exp_dir, *others], [tiny_system.data("test")])
    assert "<audio" not in text  # only with --audio
    tables = read_tables(tree)
    assert [row[:3] for row in tables["Results"]] == [
        [name, "pairs", norm] for name in ("lap-é", "lap-é-seed2", "sum")
        for norm in ("cosine", "AS-norm")]
    assert [row[8] for row in tables["Results"]] == ["42", "42", "2", "2", "42", "42"]
    # Two numbers that are 3 apart: their mean is 1.5 off, their deviation 3 / sqrt(2).
    assert tables["Means over seeds"][0] == [
        "lap-é", "pairs", "cosine", "2", f"{facts['eer'] + 1.5:.3f} ± 2.121",
        f"{(facts['min_dcf'] + 0.5) / 2:.3f}"]
    assert [row[:3] for row in tables["Against lap-é"]] == [["sum", "pairs", "cosine"],
                                                            ["sum", "pairs", "AS-norm"]]
    legends = [[words(entry) for entry in legend] for legend in tree.iter("ul")]
    assert [len(legend) for legend in legends] == [6, 3, 3, 3]  # one DET figure; three curves
    assert len({entry.get("style") for legend in tree.iter("ul") for entry in legend.iter("span")
                }) == 6


def test_folders_of_the_same_name_are_told_apart(exp_dir, tmp_path):
    other = shutil.copytree(exp_dir, tmp_path / "other" / exp_dir.name)
    _, tree = write([exp_dir, other])
    assert {row[0] for row in read_tables(tree)["Results"]} == {str(exp_dir), str(other)}
    assert "Against" not in " ".join(read_tables(tree))  # without speakers, nothing is compared


def test_a_packed_model_has_no_curves(exp_dir, page):
    assert 'id="training"' in page[0]
    (exp_dir / "metrics.jsonl").unlink()
    text, tree = write([exp_dir])
    assert 'id="training"' not in text and "#training" not in text
    assert "Configuration" in words(tree) and "num_heads: 4" in words(tree)


def test_layer_weights(exp_dir, page):
    assert 'id="layers"' not in page[0]  # LAP has none of its own
    path = exp_dir / "models" / "avg_model.safetensors"
    logits = np.log(np.array([1, 2, 3, 4, 5, 6, 4], np.float32))
    save_file({**load_file(path), "net.layer_pool.layer_logits": logits}, path)
    text, tree = write([exp_dir])
    shares = ", ".join(f"layer {n} {w:.3f}"
                       for n, w in enumerate((0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.16)))
    assert 'id="layers"' in text and shares in words(tree)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"avg_model\.safetensors: not readable as weights"):
        write([exp_dir])


def test_the_data_and_its_rejects(exp_dir, tiny_system, tmp_path):
    copied = shutil.copytree(tiny_system.data("train"), tmp_path / "train")
    (copied / "rejects.tsv").write_text("u\tu.wav\ttoo short (0.010 s, want at least 0.1 s)\n"
                                        "v\tv.wav\ttoo short (0.020 s, want at least 0.1 s)\n"
                                        "w\tw.wav\tno such file\n")
    (copied / "spk2gender").write_text("a f\nb f\nc m\né f\nz m\n")
    _, tree = write([exp_dir], [copied, tiny_system.data("test")])
    seconds = [float(line.split()[1]) for line in (copied / "utt2dur").read_text().splitlines()]
    train, test = read_tables(tree)["Data sets"]
    assert train == ["train", "16", "4", "f 3, m 1", f"{sum(seconds) / 3600:.2f}",
                     f"{min(seconds):.2f}", f"{sum(seconds) / 16:.2f}", f"{max(seconds):.2f}",
                     "0", "2 × too short; 1 × no such file"]
    assert test[:4] == ["test", "12", "3", "unknown"] and test[-1] == "none"
    (copied / "utt2dur").unlink()
    _, tree = write([exp_dir], [copied])
    assert read_tables(tree)["Data sets"][0][4] == "not audited"


def test_results_that_are_not_of_these_scores(exp_dir):
    for path in (exp_dir / "scores").glob("train_*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"results\.json has other rows than .*scores; report"):
        write_page(exp_dir / "new.html", [exp_dir])
    assert not (exp_dir / "new.html").exists()


def test_the_verb(lap, exp_dir, tiny_system):
    done = lap("report", exp_dir, "--data", tiny_system.data("train"), "--data",
               tiny_system.data("test"))
    assert done.code == 0 and f"page: {exp_dir}/report.html" in done.log
    page = (exp_dir / "report.html").read_text(encoding="utf-8")
    assert done.out.strip() == (exp_dir / "RESULTS.md").read_text(encoding="utf-8").strip()
    assert "wespeaker-lap report" in page and '<th scope="row">train</th>' in page
    both = [exp_dir, shutil.copytree(exp_dir, exp_dir.parent / "other")]
    done = lap("report", *both, "--out", exp_dir.parent / "all.html")
    assert done.code == 0 and (exp_dir.parent / "all.html").is_file()
    # Cosine and AS-norm, in the table of results and in that of other costs; and the training.
    assert done.out.count("\n| lap-é |") == done.out.count("\n| other |") == 5
    again = write_page(exp_dir.parent / "again.html", both)
    assert again.read_bytes() == (exp_dir.parent / "all.html").read_bytes()  # the same every time
