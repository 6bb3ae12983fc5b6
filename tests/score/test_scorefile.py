"""Score files: the format, and the line of every error."""

import numpy as np
import pytest

from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score.scorefile import read_scores, write_scores

TRIALS = Trials(["a", "é"], ["b", "a"], np.array([True, False]))


def test_write_and_read_back(tmp_path):
    path = tmp_path / "new" / "list.score"
    write_scores(path, TRIALS, np.array([0.123456, -2.0]))
    assert path.read_text() == "a b 0.12346 target\né a -2.00000 nontarget\n"
    trials, scores = read_scores(path)
    assert (trials.enroll, trials.test) == (TRIALS.enroll, TRIALS.test)
    assert trials.labels.tolist() == [True, False] and scores.tolist() == [0.12346, -2.0]
    write_scores(path, TRIALS, np.array([1, 2]))
    assert read_scores(path)[1].tolist() == [1, 2]
    assert [file.name for file in path.parent.iterdir()] == ["list.score"]


def test_nothing_is_written_of_unusable_scores(tmp_path):
    path = tmp_path / "list.score"
    with pytest.raises(ValueError, match=r"each of 2 trials .* got \(3,\)"):
        write_scores(path, TRIALS, np.zeros(3))
    with pytest.raises(ValueError, match="1 scores are not finite, the first is that of é and a"):
        write_scores(path, TRIALS, np.array([0, np.nan]))
    with pytest.raises(ValueError, match="at least one"):
        write_scores(path, TRIALS.select(np.array([False, False])), np.zeros(0))
    assert not path.exists()


@pytest.mark.parametrize(("text", "message"), [
    ("", "empty"),
    ("a b 1.0 target\na b target\n", ":2: expected 'enroll test score"),
    ("a b 1.0 target\n\na b x target\n", ":3: .*'a b x target'"),
    ("a b nan target\n", ":1: .*finite"),
    ("a b 1.0 target\na b 1.0 yes\n", ":2: "),
])
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "list.score"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores(path)
