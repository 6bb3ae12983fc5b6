"""Draw some speakers of a set and some utterances of each, speed copies included.

Sets of the same size in hours with more or fewer speakers tell what a speaker is worth.
"""

import argparse
import random
import sys
from pathlib import Path

from wespeaker_lap.data.datadir import DataDir, load_data_dir, write_data_dir
from wespeaker_lap.io.command import finish_command
from wespeaker_lap.io.table import invert


def draw(data: DataDir, copies: DataDir, num_speakers: int, num_utts: int, seed: int) -> list[str]:
    """Draw speakers and utterances.

    Args:
        data: the recordings as they are.
        copies: the same and their speed copies, whose ids end in `-` and that of the original.
        num_speakers: to draw.
        num_utts: of each; all of a speaker who has fewer.
        seed: of the draw; other numbers of speakers are other draws.

    Returns:
        The utterances of `copies` that are, or were made of, one of those drawn; sorted.

    Raises:
        ValueError: there are fewer speakers.
    """
    if not 2 <= num_speakers <= len(data.speakers):
        raise ValueError(f"{data.path}: {len(data.speakers)} speakers, cannot draw {num_speakers}; "
                         f"want 2 or more, and no more than there are")
    rng = random.Random(1000 * seed + num_speakers)
    utts = invert(data.utt2spk)
    drawn: set[str] = set()
    for speaker in sorted(rng.sample(data.speakers, num_speakers)):
        own = sorted(utts[speaker])
        drawn.update(rng.sample(own, min(num_utts, len(own))))
    return sorted(utt for utt in copies.utt2spk if utt in drawn or utt.split("-", 1)[-1] in drawn)


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="data directory to draw from")
    parser.add_argument("--copies", type=Path, required=True,
                        help="data directory of the same with speed copies")
    parser.add_argument("--num_speakers", type=int, required=True)
    parser.add_argument("--num_utts", type=int, required=True, help="of each speaker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="data directory to write")
    args = parser.parse_args(argv)

    def work() -> None:
        copies = load_data_dir(args.copies)
        utts = draw(load_data_dir(args.data), copies, args.num_speakers, args.num_utts, args.seed)
        utt2spk = {utt: copies.utt2spk[utt] for utt in utts}
        write_data_dir(args.out, {utt: copies.wavs[utt] for utt in utts}, utt2spk,
                       copies.spk2gender)
        print(f"{args.out}: {len(set(utt2spk.values()))} speakers, {len(utts)} utterances, copies "
              f"included")

    return finish_command("draw_speakers.py", work)


if __name__ == "__main__":
    sys.exit(main())
