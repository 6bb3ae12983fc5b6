"""What the demo shows, as HTML: decisions, rankings, messages. No model and no server."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wespeaker_lap.score.operating import OperatingPoint
from wespeaker_lap.share.decision import Decision
from wespeaker_lap.share.demo_scale import Spread, lay_out

TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "demo.css").read_text(encoding="utf-8")
SCORES = {"none": "cosine", "asnorm": "AS-norm", "snorm": "S-norm"}
VERDICTS = {"accepted": "Accepted: one speaker", "rejected": "Rejected: two speakers",
            None: "No decision"}
ADVICE = ("Check the microphone and record a few seconds of speech, or choose another file: WAV, "
          "FLAC, OGG, Opus and MP3 are read.")


def show_decision(found: Decision, point: OperatingPoint | None = None,
                  spread: Spread | None = None) -> str:
    """Whether two recordings are of one speaker, and what that rests on.

    Args:
        found: of `SpeakerModel.verify`.
        point: of the threshold, whose error rates are told; None where a user gave it.
        spread: as for `lay_out`.

    Returns:
        HTML; everything in it is escaped.
    """
    return _show_found(found, VERDICTS[found.decision], point, spread)


def show_identity(found: Decision, num_enrolled: int, point: OperatingPoint | None = None,
                  spread: Spread | None = None) -> str:
    """Whose voice a recording is, and the nearest speakers.

    Args:
        found: of `SpeakerModel.identify`.
        num_enrolled: speakers that it was compared with.
        point, spread: as for `show_decision`.

    Returns:
        HTML, escaped.
    """
    verdict = {"accepted": f"It is {found.speaker}", "rejected": "Nobody who is enrolled",
               None: VERDICTS[None]}[found.decision]
    return _show_found(found, verdict, point, spread, num_enrolled)


def _show_found(found: Decision, verdict: str, point: OperatingPoint | None,
                spread: Spread | None, num_enrolled: int = 0) -> str:
    scale = None
    if found.score is not None:
        scores = [score for _, score in found.ranking] or [found.score]
        scale = lay_out(scores, found.threshold, found.norm, spread)
    return _render("demo_decision.html", found=found, verdict=verdict, point=point, scale=scale,
                   scores=SCORES[found.norm], remarks=found.warnings,
                   advice="" if found.decision else ADVICE, num_enrolled=num_enrolled)


def show_message(text: str, remarks: Sequence[str] = (), advice: str = "",
                 is_error: bool = False) -> str:
    """A sentence in a box, with remarks and what to do about them; HTML, escaped."""
    return _render("demo_message.html", text=text, remarks=remarks, advice=advice,
                   is_error=is_error)


def show_head(name: str, threshold: float, source: str, is_local: bool) -> str:
    """The head of the page: which model, which threshold, where recordings go; HTML, escaped."""
    return _render("demo_head.html", name=name, threshold=threshold, source=source,
                   is_local=is_local)


def name_files(text: str, names: Mapping[str, str]) -> str:
    """Put the names that a person knows in place of a server's temporary files.

    >>> name_files("/t/a.wav: silent", {"/t/a.wav": "First recording"})
    'First recording: silent'
    """
    for path in sorted(names, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(path, names[path])
    return text


def _render(template: str, **values: object) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)
