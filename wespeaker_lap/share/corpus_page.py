"""What a corpus holds, on one page: Markdown for a terminal, HTML with plots for a browser."""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.corpus import LEVELS, Corpus, Utterance, count_kinds
from wespeaker_lap.io.table import write_text
from wespeaker_lap.share.corpus_plots import plot_corpus

MAX_ROWS = 2000  # of a table of the HTML page; all rejects are in rejects.tsv
STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem;overflow-wrap:anywhere}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;
text-align:right;vertical-align:top}td:first-child,th:first-child{text-align:left}
td.text{text-align:left;overflow-wrap:anywhere}
.wide{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;flex:1 1 24rem}figure img{width:100%}
li{margin:.3rem 0;overflow-wrap:anywhere}li b{padding:0 .5em;border-radius:.3em;font-weight:600}
.error b{background:#c62828;color:#fff}.warning b{background:#ffd54f}.note b{background:#e0e0e0}
"""


@dataclass(frozen=True)
class Table:
    """A titled table; a long one is for the HTML page alone, folded."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_long: bool = False


def write_pages(corpus: Corpus) -> tuple[Path, Path]:
    """Write `audit.md` and `audit.html`, which needs no other file and no network.

    Args:
        corpus: with errors or without.

    Returns:
        The two pages.
    """
    paths = corpus.wishes.out / "audit.md", corpus.wishes.out / "audit.html"
    tables = make_tables(corpus)
    write_text(paths[0], format_markdown(corpus, tables))
    write_text(paths[1], format_html(corpus, tables, plot_corpus(corpus) if corpus.utts else {}))
    return paths


def make_tables(corpus: Corpus) -> list[Table]:
    """The tables of a page: sets, trials, sample rates, rejects, speakers."""
    groups = {name: list(corpus.of_set(name).values()) for name in corpus.sets}
    groups["all"] = list(corpus.utts.values())
    tables = [Table("Sets", ("Set", "Speakers", "Known f / m", "Utterances", "Hours",
                             "Utterances a speaker", "Seconds an utterance"),
                    [_describe_set(name, own, corpus.genders) for name, own in groups.items()])]
    if corpus.trials:
        tables.append(Table("Trials", ("Set", "Target", "Non-target"), [
            (name, f"{trials.num_target:,}", f"{trials.num_nontarget:,}")
            for name, trials in corpus.trials.items()]))
    formats = Counter((one.measure.sample_rate, one.measure.num_channels)
                      for one in corpus.utts.values())
    tables.append(Table("Recordings", ("Sample rate", "Channels", "Utterances"), [
        (f"{rate} Hz", str(channels), f"{count:,}")
        for (rate, channels), count in formats.most_common()]))
    if corpus.rejects:
        kinds = count_kinds(reason for _, _, reason in corpus.rejects)
        tables += [Table("Left out", ("Reason", "Recordings"), [(k, f"{n:,}") for k, n in kinds]),
                   Table("Recordings left out", ("Utterance", "File", "Reason"), corpus.rejects,
                         is_long=True)]
    return [*tables, Table("Speakers", ("Speaker", "Set", "Gender", "Utterances", "Minutes"),
                           _describe_speakers(corpus), is_long=True)]


def _describe_set(name: str, utts: Sequence[Utterance], genders: dict[str, str]) -> list[str]:
    counts = Counter(one.speaker for one in utts)
    known = Counter(genders[speaker] for speaker in counts if speaker in genders)
    seconds = [one.measure.seconds for one in utts]
    return [name, f"{len(counts):,}", f"{known['f']} / {known['m']}", f"{len(utts):,}",
            f"{sum(seconds) / 3600:.2f}", _spread(list(counts.values()), "{:.0f}"),
            _spread(seconds, "{:.1f}")]


def _spread(values: Sequence[float], form: str) -> str:
    """Least, median and most."""
    if not values:
        return "-"
    least, median, most = (form.format(x) for x in (min(values), np.median(values), max(values)))
    return f"{least} / {median} / {most}"


def _describe_speakers(corpus: Corpus) -> list[list[str]]:
    sets = {speaker: name for name, own in corpus.sets.items() for speaker in own}
    seconds: dict[str, list[float]] = {}
    for one in corpus.utts.values():
        seconds.setdefault(one.speaker, []).append(one.measure.seconds)
    return [[speaker, sets.get(speaker, "-"), corpus.genders.get(speaker, "-"),
             f"{len(own):,}", f"{sum(own) / 60:.1f}"] for speaker, own in sorted(seconds.items())]


def _head(corpus: Corpus) -> tuple[str, str]:
    wishes = corpus.wishes
    held = ", ".join(f"{name} {amount:g}" for name, amount in wishes.held_out.items())
    shares = [np.array([getattr(one.measure, name) for one in corpus.utts.values()])
              for name in ("silence", "clipping")]
    sound = "" if not corpus.utts else (
        f" Silence: {shares[0].mean():.1%} of the frames on average. Clipping: "
        f"{np.count_nonzero(shares[1])} recordings, {shares[1].max():.2%} of the samples at worst.")
    return (f"Corpus {wishes.wav_dir.resolve().name}",
            f"Speakers from {wishes.spk_from}; held back: {held}; seed {wishes.seed}. Spreads are "
            f"least / median / most.{sound}")


def format_markdown(corpus: Corpus, tables: Sequence[Table]) -> str:
    """The page as Markdown, without the long tables."""
    title, text = _head(corpus)
    lines = [f"# {title}", "", text, ""]
    if corpus.remarks:
        lines += ["## Remarks", "", *(f"- **{r.level}**: {r.text}" for r in corpus.remarks), ""]
    for table in tables:
        if not table.is_long:
            lines += [f"## {table.title}", "", _row(table.header),
                      _row(["---", *["---:"] * (len(table.header) - 1)]),
                      *(_row(row) for row in table.rows), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def format_html(corpus: Corpus, tables: Sequence[Table], plots: dict[str, str]) -> str:
    """The page as HTML.

    Args:
        corpus: what it is about.
        tables: of `make_tables`.
        plots: title -> `data:` address.
    """
    title, text = map(html.escape, _head(corpus))
    remarks = "".join(f'<li class="{r.level}"><b>{r.level}</b> {html.escape(r.text)}</li>\n'
                      for r in corpus.remarks)
    figures = "".join(f'<figure><figcaption>{html.escape(name)}</figcaption>'
                      f'<img alt="{html.escape(name)}" src="{address}"></figure>\n'
                      for name, address in plots.items())
    counts = Counter(remark.level for remark in corpus.remarks)
    told = ", ".join(f"{counts[level]} {level}{'s' if counts[level] != 1 else ''}"
                     for level in LEVELS)
    short = "".join(_to_html(table) for table in tables if not table.is_long)
    long = "".join(_to_html(table) for table in tables if table.is_long)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
            f'<style>\n{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{text}</p>\n'
            f'<h2>Remarks: {told}</h2>\n<ul>\n{remarks}</ul>\n{short}'
            f'<h2>Plots</h2>\n<div class="plots">\n{figures}</div>\n{long}</body></html>\n')


def _to_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    kind = ' class="text"' if table.title == "Recordings left out" else ""
    rows = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows[:MAX_ROWS])
    body = f'<div class="wide"><table>\n<tr>{head}</tr>\n{rows}</table></div>\n'
    more = len(table.rows) - MAX_ROWS
    if more > 0:
        body += f"<p>and {more:,} more</p>\n"
    if not table.is_long:
        return f"<h2>{html.escape(table.title)}</h2>\n{body}"
    return (f"<details><summary>{html.escape(table.title)} ({len(table.rows):,})</summary>\n"
            f"{body}</details>\n")
