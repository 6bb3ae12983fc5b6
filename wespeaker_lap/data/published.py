"""Published trial lists: taken over as they are, or not at all, and the reader is told."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from wespeaker_lap.data.trials import read_trials, write_trials
from wespeaker_lap.io.table import name_some


def import_list(source: str | Path, utts: Collection[str], target: str | Path,
                incomplete: str = "error", published: int | None = None) -> str:
    """Write a published trial list in the Kaldi style.

    Args:
        source: the list, in either style, plain or `.gz`.
        utts: the utterances that there are (a set or a dict: it is asked often).
        target: the list that the recipe scores.
        incomplete: what to do with a list that names an absent utterance: `error`, `skip` (do
            not write it, and remove an older one), or `keep` (write it as it is, for scoring with
            missing ones).
        published: how many trials the published list has; None where that is not known.

    Returns:
        One sentence about what was done.

    Raises:
        ValueError: a broken list, or an incomplete one under `error`.
    """
    trials = read_trials(source)
    told = f"{len(trials)} trials ({trials.num_target} target)"
    if published is not None and len(trials) != published:
        told += f", NOT the official {published}: no published figure compares with it"
    absent = sorted({utt for utt in {*trials.enroll, *trials.test} if utt not in utts})
    if absent:
        told += f", {len(absent)} utterances are absent: {name_some(absent, 3)}"
        if incomplete == "error":
            raise ValueError(f"{source}: {told}; complete the corpus, or pass "
                             f"--incomplete_lists skip or keep")
    if absent and incomplete == "skip":
        Path(target).unlink(missing_ok=True)
        return told + "; left out"
    write_trials(target, trials)
    return told


def import_valid_list(source: str | Path, utts: Collection[str], target: str | Path,
                      incomplete: str = "error", published: int | None = None) -> str:
    """Write a published list of the set that training watches: as it is, and as `valid.kaldi`.

    The latter has the list's trials of utterances that there are, for training cannot do without
    one. All else as in `import_list`.
    """
    told, target = import_list(source, utts, target, incomplete, published), Path(target)
    if target.is_file():
        trials = read_trials(target)
        kept = np.array([a in utts and b in utts
                         for a, b in zip(trials.enroll, trials.test, strict=True)])
        write_trials(target.with_name("valid.kaldi"), trials.select(kept))
    return told


def import_unipool(lists_dir: Path, data: Path, name: str, utts: Collection[str], incomplete: str,
                   published: int) -> str:
    """Write UniPool's list of one set, `NAME.kaldi.gz` in a folder of lists, into the set.

    Args:
        lists_dir: the folder of lists.
        data: folder of the data directories; the list becomes `NAME/trials/unipool_NAME.kaldi`.
        name: of the set; `valid` is taken by `import_valid_list`, others by `import_list`.
        utts, incomplete, published: as for these.

    Returns:
        One line about what was done.

    Raises:
        ValueError: a broken list, or an incomplete one under `error`.
    """
    take = import_valid_list if name == "valid" else import_list
    told = take(lists_dir / f"{name}.kaldi.gz", utts,
                data / name / "trials" / f"unipool_{name}.kaldi", incomplete, published)
    return f"unipool_{name}: {told}"
