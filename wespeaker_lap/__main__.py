"""`python -m wespeaker_lap VERB …` is the command `wespeaker-lap VERB …`."""

from wespeaker_lap.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
