"""VoxCeleb's trees, metadata and official lists."""

import gzip
from pathlib import Path

import pytest

from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.data.voxceleb import (
    OFFICIAL_LISTS,
    Person,
    find_audio,
    find_file,
    import_lists,
    read_meta,
    speaker_of,
)

FILES = ("id10001/1zcIwhmdeo4/00001", "id10001/x-_9/00002", "id10270/5r0dWxy17C8/00001")
UTTS = [f"{name}.wav" for name in FILES]


def plant(root: Path, suffix: str, names: tuple = FILES) -> Path:
    for name in names:
        path = root / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a", ".WAV"])
@pytest.mark.parametrize("between", ["", "wav", "dev/wav", "dev/aac", "vox1_dev/dev/wav"])
def test_every_tree_gives_the_same_ids(tmp_path: Path, between: str, suffix: str) -> None:
    plant(tmp_path / between, suffix)
    found = find_audio(tmp_path)
    assert list(found) == UTTS
    assert found[UTTS[0]] == tmp_path / between / (FILES[0] + suffix)
    assert speaker_of(UTTS[0]) == "id10001"


def test_dev_and_test_are_joined_or_left_out(tmp_path: Path) -> None:
    plant(tmp_path / "dev" / "aac", ".m4a", FILES[:2])
    plant(tmp_path / "test" / "aac", ".m4a", FILES[2:])
    assert list(find_audio(tmp_path)) == UTTS
    assert list(find_audio(tmp_path, skip=("test",))) == UTTS[:2]


def test_a_converted_copy_is_preferred_and_litter_is_passed_over(tmp_path: Path) -> None:
    plant(tmp_path / "aac", ".m4a")
    plant(tmp_path / "wav", ".wav", FILES[:1])
    plant(tmp_path / "wav", ".txt", FILES[1:2])
    (tmp_path / "wav" / FILES[0]).with_name(".00009.wav.tmp").touch()
    (tmp_path / "wav" / FILES[0]).with_name("._00007.wav").touch()
    (tmp_path / "id1").mkdir()
    found = find_audio(tmp_path)
    assert list(found) == UTTS
    assert [path.suffix for path in found.values()] == [".wav", ".m4a", ".m4a"]


def test_two_copies_are_an_error(tmp_path: Path) -> None:
    plant(tmp_path / "a", ".wav")
    plant(tmp_path / "b", ".wav", FILES[1:2])
    with pytest.raises(ValueError, match=r"id10001/x-_9/00002\.wav: two recordings, .*/a/.*/b/"):
        find_audio(tmp_path)


def test_no_audio_says_how_to_get_it(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match=r"on request at https://www\.robots"):
            find_audio(root)


TABBED = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.\tm\tIreland\tdev\n"
COMMAS = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set\nid00012 ,n000012 ,f ,test\n\n"


def test_metadata_with_tabs_or_commas(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABBED)
    (tmp_path / "b.csv").write_text(COMMAS)
    assert read_meta(tmp_path / "a.csv") == {"id10001": Person("m", "dev")}
    assert read_meta(tmp_path / "b.csv") == {"id00012": Person("f", "test")}


@pytest.mark.parametrize(("text", "where"), [
    ("", ":1: expected a header"), ("a,b,c\n", ":1: expected a header"),
    (COMMAS + "id00013,n000013\n", ":4: expected"), (COMMAS + "id00013,n,x,dev\n", ":4: expected"),
])
def test_broken_metadata_names_the_line(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"m\.csv{where}"):
        read_meta(tmp_path / "m.csv")


def test_official_metadata(shared: Path) -> None:
    vox1 = read_meta(shared / "lists" / "voxceleb" / "vox1_meta.csv")
    vox2 = read_meta(shared / "lists" / "voxceleb" / "vox2_meta.csv")
    assert (len(vox1), sum(p.subset == "test" for p in vox1.values())) == (1251, 40)
    assert (len(vox2), sum(p.subset == "dev" for p in vox2.values())) == (6114, 5994)
    assert not vox1.keys() & vox2.keys()


@pytest.mark.parametrize(("name", "targets", "utts"),
                         [("vox1_O", 18860, 4715), ("vox1_O_cleaned", 18802, 4708)])
def test_official_lists(shared: Path, tmp_path: Path, name: str, targets: int, utts: int) -> None:
    file, num_trials = OFFICIAL_LISTS[name]
    path = find_file(file, [tmp_path, shared / "lists" / "voxceleb"])
    with gzip.open(path, "rt") as lines:
        rows = [line.split() for line in lines]
    known = {utt for row in rows for utt in row[1:]}
    told = import_lists({name: path}, known, tmp_path / "trials")
    assert told == {name: f"{num_trials} trials ({targets} target)"}
    trials = read_trials(tmp_path / "trials" / f"{name}.kaldi")
    assert len(trials) == num_trials == len(rows)
    assert (trials.num_target, trials.num_nontarget) == (targets, num_trials - targets)
    assert len(known) == utts and len({speaker_of(utt) for utt in known}) == 40
    for i in (0, 1, len(rows) // 2, -1):
        assert [str(int(trials.labels[i])), trials.enroll[i], trials.test[i]] == rows[i]


def write_list(folder: Path) -> dict[str, Path]:
    path = folder / "veri_test2.txt"
    path.write_text(f"1 {UTTS[0]} {UTTS[1]}\n0 {UTTS[0]} {UTTS[2]}\n")
    return {"vox1_O_cleaned": path}


def test_a_list_of_another_size_is_named(tmp_path: Path) -> None:
    told = import_lists(write_list(tmp_path), set(UTTS), tmp_path)["vox1_O_cleaned"]
    assert told.startswith("2 trials (1 target), NOT the official 37611")
    assert (tmp_path / "vox1_O_cleaned.kaldi").read_text() == (
        f"{UTTS[0]} {UTTS[1]} target\n{UTTS[0]} {UTTS[2]} nontarget\n")


def test_absent_utterances(tmp_path: Path) -> None:
    lists, written = write_list(tmp_path), tmp_path / "vox1_O_cleaned.kaldi"
    with pytest.raises(ValueError, match=rf"1 utterances are absent: {UTTS[2]}; complete the"):
        import_lists(lists, set(UTTS[:2]), tmp_path)
    assert not written.exists()
    assert "absent" in import_lists(lists, set(UTTS[:2]), tmp_path, "keep")["vox1_O_cleaned"]
    assert written.exists()
    assert "left out" in import_lists(lists, set(UTTS[:2]), tmp_path, "skip")["vox1_O_cleaned"]
    assert not written.exists()
