"""Study a folder of recordings: who speaks, what cannot be used, which set, which trials.

Studying changes nothing but a cache; what is wrong is collected, so that one page can show all of
it before anything is written.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from wespeaker_lap.data.collect import CONVERT_SUFFIXES, Found, find_recordings, make_ids
from wespeaker_lap.data.convert import convert_all
from wespeaker_lap.data.corpus import ERROR, SHARED, WARNING, Corpus, Remark, Utterance, Wishes
from wespeaker_lap.data.naming import Named, name_speakers
from wespeaker_lap.data.remarks import remark_corpus
from wespeaker_lap.data.split import split_speakers
from wespeaker_lap.data.survey import Measure, survey
from wespeaker_lap.data.trials import Trials, make_trials
from wespeaker_lap.io.table import invert, name_some

HELD_OUT = ("valid", "test")


def study_corpus(wishes: Wishes) -> Corpus:
    """Find the recordings, name their speakers, measure them, split them and draw trials.

    Only `converted/` and the cache in `wishes.out` are written.

    Raises:
        FileNotFoundError: no folder, no recordings, or no table.
        ValueError: wishes that cannot be met, see `naming.name_speakers`.
    """
    check_folders(wishes)
    found = find_recordings(wishes.wav_dir, wishes.num_jobs)
    named = name_speakers(found.names, wishes.spk_from, wishes.regex, wishes.table, found.root)
    ids = make_ids(found.names)
    logging.info("%s: %d recordings, %d with a speaker (%d speakers)", found.root,
                 len(found.names), len(named.speakers), len(set(named.speakers.values())))
    wavs, failed = convert_formats(found, named, ids, wishes)
    measures = survey(wavs, wishes.out / "measured.jsonl", wishes.sample_rate, wishes.min_seconds,
                      wishes.num_jobs)
    unusable = failed | {name: one.reason for name, one in measures.items() if one.reason}
    usable = {name: one for name, one in measures.items() if not one.reason}
    copies, shared = find_copies(usable, named.speakers)
    utts = {ids[name]: Utterance(name, wavs[name], named.speakers[name], usable[name])
            for name in usable if name not in copies and name not in shared}
    reasons = found.rejects | named.rejects | unusable | copies | shared
    rejects = [(ids.get(name, "-"), found.path(name), reason)
               for name, reason in sorted(reasons.items())]
    remarks = remark_corpus(found, named, ids, unusable, copies, shared, utts, wishes)
    sets, trials = divide(utts, named.genders, wishes, remarks)
    remarks.sort(key=lambda remark: remark.rank)
    return Corpus(wishes, dict(sorted(utts.items())), named.genders, sets, trials, rejects, remarks)


def check_folders(wishes: Wishes) -> None:
    """Refuse to write into the recordings' folder, or to leave sets of another call beside ours.

    Raises:
        ValueError: what is in the way, or a wish that is none of the choices.
    """
    if wishes.shared_sound not in SHARED:
        raise ValueError(f"--shared_sound {wishes.shared_sound}: want {' or '.join(SHARED)}")
    root, out = wishes.wav_dir.resolve(), wishes.out.resolve()
    if out.is_relative_to(root):
        raise ValueError(f"--out {wishes.out} lies in --wav_dir, where nothing is written; choose "
                         f"a folder outside of it")
    for name in ("train", *HELD_OUT, "converted"):
        if root.is_relative_to(out / name):
            raise ValueError(f"--wav_dir {wishes.wav_dir} lies in {out / name}, which is written; "
                             f"choose another --out")
    for name in HELD_OUT:
        if not wishes.held_out.get(name) and (out / name / "wav.scp").is_file():
            raise ValueError(f"{wishes.out}/{name} is of an earlier call, and now no speakers are "
                             f"held back for it; remove it or choose another --out")


def convert_formats(found: Found, named: Named, ids: Mapping[str, str],
                    wishes: Wishes) -> tuple[dict[str, str], dict[str, str]]:
    """Make wavs in `converted/` of what libsndfile does not read.

    Returns:
        Recording -> the file to decode, and recording -> why it could not be converted.
    """
    names = [name for name in found.names if name in named.speakers]
    targets = {}
    for name in names:
        if PurePosixPath(name).suffix.lower() in CONVERT_SUFFIXES:
            status = os.stat(found.path(name))  # another recording gets another wav
            text = f"{name} {status.st_size} {status.st_mtime_ns} {wishes.sample_rate}"
            mark = hashlib.sha256(text.encode()).hexdigest()[:8]
            targets[name] = f"{ids[name]}.{mark}.wav".replace("/", "_")
    folder = wishes.out.resolve() / "converted"
    try:
        done, failed = convert_all({targets[name]: Path(found.path(name)) for name in targets},
                                   folder, wishes.num_jobs)
    except FileNotFoundError as error:  # there is no ffmpeg
        done, failed = {}, dict.fromkeys(targets.values(), str(error))
    wavs = {name: str(done[targets[name]]) if name in targets else found.path(name)
            for name in names if targets.get(name) not in failed}
    return wavs, {name: f"not converted ({failed[target]})" for name, target in targets.items()
                  if target in failed}


def find_copies(measures: Mapping[str, Measure],
                speakers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Find recordings with the same sound.

    Args:
        measures: usable recording -> what it is.
        speakers: recording -> speaker.

    Returns:
        Later copies of one speaker's recording, and all copies of a sound that is said to be of
        several speakers; each with the reason to leave it out.
    """
    groups = invert({name: one.digest for name, one in measures.items()})
    copies, shared = {}, {}
    for own in groups.values():
        people = sorted({speakers[name] for name in own})
        if len(people) > 1:
            shared |= dict.fromkeys(
                own, f"the same sound under several speakers ({name_some(people, 4)})")
        else:
            copies |= dict.fromkeys(own[1:], f"the same sound as one that is kept ({own[0]})")
    return copies, shared


def divide(utts: Mapping[str, Utterance], genders: Mapping[str, str], wishes: Wishes,
           remarks: list[Remark]) -> tuple[dict[str, list[str]], dict[str, Trials]]:
    """Split the speakers and draw trials; what is impossible is added to the remarks."""
    utt2spk = {utt: one.speaker for utt, one in utts.items()}
    try:
        sets = split_speakers(utt2spk, wishes.held_out, wishes.seed, genders)
    except ValueError as error:
        remarks.append(Remark(ERROR, str(error)))
        return {}, {}
    trials = {}
    for name in (name for name in sets if name != "train"):
        own = {utt: spk for utt, spk in utt2spk.items() if spk in sets[name]}
        num_target, num_same_gender = count_pairs(own, genders)
        known = genders
        if genders and not num_same_gender:
            remarks.append(Remark(WARNING, f"{name}: no two speakers of one gender, so its "
                                           f"non-target trials are of both"))
            known, num_same_gender = {}, count_pairs(own, {})[1]
        size = min(num_target, num_same_gender, wishes.max_target)
        trials[name] = make_trials(own, known, wishes.seed, size)
    return sets, trials


def count_pairs(utt2spk: Mapping[str, str], genders: Mapping[str, str]) -> tuple[int, int]:
    """Count the pairs of one speaker, and those of two speakers of one gender.

    >>> count_pairs({"a1": "a", "a2": "a", "b1": "b", "c1": "c"}, {"a": "f", "b": "f", "c": "m"})
    (1, 2)
    """
    by_speaker = Counter(utt2spk.values())
    by_gender: Counter = Counter()
    for speaker, count in by_speaker.items():
        by_gender[genders.get(speaker, "")] += count
    num_target = sum(n * (n - 1) // 2 for n in by_speaker.values())
    return num_target, sum(n * (n - 1) // 2 for n in by_gender.values()) - num_target
