"""What a person should know of a corpus before hours of computing."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from wespeaker_lap.data.collect import CONVERT_SUFFIXES, Found, short_id
from wespeaker_lap.data.corpus import ERROR, NOTE, WARNING, Remark, Utterance, Wishes, count_kinds
from wespeaker_lap.data.naming import Named
from wespeaker_lap.data.survey import Measure
from wespeaker_lap.io.table import invert, name_some

MOSTLY_SILENT = 0.5  # share of frames
CLIPPED = 0.001  # share of samples
LONG_SECONDS = 600.0  # so long a recording is rarely of one person


def remark_corpus(found: Found, named: Named, ids: Mapping[str, str],
                  unusable: Mapping[str, str], copies: Mapping[str, str],
                  shared: Mapping[str, str], utts: Mapping[str, Utterance],
                  wishes: Wishes) -> list[Remark]:
    """Collect everything but what the split brings.

    Args:
        found, named: the recordings and whose they are.
        ids: recording -> utterance id.
        unusable: recordings that cannot be used -> reason.
        copies, shared: see `study.find_copies`.
        utts: utterance id -> what is left.
        wishes: how the corpus is to be made.
    """
    remarks = []
    if shared:
        remarks.append(Remark(
            ERROR if wishes.shared_sound == "error" else WARNING,
            f"{_count(shared, 'recording')} with the same sound under several speakers: "
            f"{name_some(sorted(shared), 4)}; correct whose they are, or leave all of them out "
            f"with --shared_sound drop"))
    if len(unusable) > wishes.max_reject_share * len(named.speakers):
        remarks.append(Remark(
            ERROR, f"{len(unusable)} of {len(named.speakers)} recordings cannot be used, more than "
                   f"{wishes.max_reject_share:.0%}; mend them (rejects.tsv) or raise "
                   f"--max_reject_share"))
    remarks += [Remark(WARNING, text) for text in named.warnings]
    remarks += [Remark(WARNING, text) for text in _warn_of_rejects(found, named, unusable, copies)]
    remarks += [Remark(WARNING, text) for text in _warn_of_sound(utts, wishes.sample_rate)]
    remarks += [Remark(WARNING, text) for text in _warn_of_speakers(named, utts)]
    return remarks + [Remark(NOTE, text) for text in _note(found, ids, utts)]


def _warn_of_rejects(found: Found, named: Named, unusable: Mapping[str, str],
                     copies: Mapping[str, str]) -> list[str]:
    texts = []
    for rejects in (found.rejects, named.rejects, unusable, copies):
        texts += [f"{count} recording{'s' if count > 1 else ''} left out: {kind}"
                  for kind, count in count_kinds(rejects.values())]
    return texts


def _warn_of_sound(utts: Mapping[str, Utterance], sample_rate: int) -> list[str]:
    measures = {utt: one.measure for utt, one in utts.items()}
    checks: Sequence[tuple[Callable[[Measure], bool], str]] = (
        (lambda m: m.silence > MOSTLY_SILENT, "of more than half silence"),
        (lambda m: m.clipping > CLIPPED, f"with more than {CLIPPED:.1%} of the samples clipped"),
        (lambda m: m.seconds > LONG_SECONDS,
         f"of more than {LONG_SECONDS / 60:.0f} minutes (does anybody else speak in them?)"),
        (lambda m: m.sample_rate < sample_rate,
         f"made at less than {sample_rate} Hz, so with nothing above half their rate"))
    texts = []
    for check, what in checks:
        own = sorted(utt for utt, measure in measures.items() if check(measure))
        if own:
            texts.append(f"{_count(own, 'recording')} {what}: {name_some(own, 4)}")
    rates = Counter(measure.sample_rate for measure in measures.values())
    if len(rates) > 1:
        shown = ", ".join(f"{count} x {rate} Hz" for rate, count in rates.most_common(5))
        texts.append(f"recordings of different sample rates ({shown}): where they go with the "
                     f"speaker, a model learns the rate in place of the voice")
    return texts


def _warn_of_speakers(named: Named, utts: Mapping[str, Utterance]) -> list[str]:
    spk2utt = invert({utt: one.speaker for utt, one in utts.items()})
    lost = sorted(set(named.speakers.values()) - spk2utt.keys())
    single = [speaker for speaker, own in spk2utt.items() if len(own) == 1]
    texts = []
    if lost:
        texts.append(f"{_count(lost, 'speaker')} without a usable recording: {name_some(lost, 5)}")
    if single:
        texts.append(f"{_count(single, 'speaker')} with a single utterance, used for training "
                     f"alone: {name_some(single, 5)}")
    return texts


def _note(found: Found, ids: Mapping[str, str], utts: Mapping[str, Utterance]) -> list[str]:
    texts = []
    blanks = [name for name in found.names if name.split() != [name]]
    if blanks:
        texts.append(f"ids have _ in place of blanks in {_count(blanks, 'path')}, such as "
                     f"'{blanks[0]}': {ids[blanks[0]]}")
    twins = [name for name in found.names if ids[name] != short_id(name)]
    if twins:
        texts.append(f"{_count(twins, 'recording')} would share an id with another one, so theirs "
                     f"are made of the whole path, such as {ids[twins[0]]}")
    if found.others:
        shown = ", ".join(f"{count} x {suffix}" for suffix, count in list(found.others.items())[:8])
        texts.append(f"files that are no recordings, passed over: {shown}")
    converted = [one for one in utts.values() if one.name.lower().endswith(CONVERT_SUFFIXES)]
    if converted:
        texts.append(f"{_count(converted, 'recording')} converted to wav with ffmpeg, whose own "
                     f"sample rate is not listed")
    many = [utt for utt, one in utts.items() if one.measure.num_channels > 1]
    if many:
        texts.append(f"{_count(many, 'recording')} of several channels, averaged to one")
    return texts


def _count(things: Collection, noun: str) -> str:
    """
    >>> _count([1], "speaker"), _count([1, 2], "speaker")
    ('1 speaker', '2 speakers')
    """
    return f"{len(things)} {noun}{'s' if len(things) != 1 else ''}"
