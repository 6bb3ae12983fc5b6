"""A part of speechocean762, in the corpus's own layout."""

from collections.abc import Mapping
from pathlib import Path

from wespeaker_lap.io.table import invert, read_table, write_table


def write_small_corpus(source: Path, root: Path, num_speakers: Mapping[str, int],
                       num_utts: int) -> Path:
    """Write the tables of the first speakers with so many utterances each.

    Args:
        source: the corpus, where the sounds stay.
        root: folder of the part.
        num_speakers: of `train` and of `test`.
        num_utts: of each of them.

    Returns:
        `root`.
    """
    (root / "WAVE").symlink_to(source / "WAVE")
    for part, num in num_speakers.items():
        tables = {name: read_table(source / part / name)
                  for name in ("wav.scp", "utt2spk", "spk2gender")}
        speakers = sorted(invert(tables["utt2spk"]).items())[:num]
        utts = [utt for _, own in speakers for utt in sorted(own)[:num_utts]]
        for name in ("wav.scp", "utt2spk"):
            write_table(root / part / name, {utt: tables[name][utt] for utt in utts})
        write_table(root / part / "spk2gender",
                    {speaker: tables["spk2gender"][speaker] for speaker, _ in speakers})
    return root
