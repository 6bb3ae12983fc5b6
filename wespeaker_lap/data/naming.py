"""Whose a recording is: by its folder, by a regular expression on its path, or by a table."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wespeaker_lap.data.collect import join_blanks
from wespeaker_lap.io.table import name_some, read_lines

# What the columns of a table may be called, in lower case; Common Voice has client_id and gender.
PATH_COLUMNS = ("path", "file", "filename", "wav")
SPEAKER_COLUMNS = ("speaker", "spk", "speaker_id", "client_id")
GENDER_COLUMNS = ("gender", "sex")
GENDERS = {"m": "m", "male": "m", "male_masculine": "m", "f": "f", "female": "f",
           "female_feminine": "f"}


@dataclass(frozen=True)
class Named:
    """Whose the recordings are.

    Attributes:
        speakers: recording -> speaker, without blanks.
        genders: speaker -> `m` or `f`, where known.
        rejects: recordings that nobody could be named for, with the reason.
        warnings: what looks wrong.
    """

    speakers: dict[str, str]
    genders: dict[str, str] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def name_speakers(names: Sequence[str], spk_from: str, regex: str = "",
                  table: str | Path | None = None, root: str | Path = "") -> Named:
    """Name the speaker of every recording.

    Args:
        names: recordings, as paths relative to the corpus folder.
        spk_from: `parent`, the folder that a recording lies in; `regex`; or `csv`.
        regex: for `regex`: searched in the relative path, its group `spk` is the speaker.
        table: a file with commas, semicolons or tabs whose first line names the columns. For
            `csv`: path and speaker, optionally gender. Else: speaker and gender.
        root: the corpus folder, for absolute paths in the table.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: options that do not fit together, a broken regex or table, no speaker at all,
            or two speakers with one id.
    """
    if spk_from not in WAYS:
        raise ValueError(f"--spk_from {spk_from}: want one of {', '.join(WAYS)}")
    if (spk_from == "regex") != bool(regex):
        raise ValueError("--spk_from regex and --regex go together; give both or neither")
    if spk_from == "csv" and table is None:
        raise ValueError("--spk_from csv needs --csv FILE with the columns path and speaker")
    rows = [] if table is None else read_rows(table)
    named = WAYS[spk_from](names, regex, rows, Path(root))
    if not named.speakers:
        name, reason = next(iter(named.rejects.items()))
        raise ValueError(f"no recording has a speaker; of '{name}', for instance: {reason}")
    ids = _make_speaker_ids(sorted(set(named.speakers.values())))
    speakers = {name: ids[speaker] for name, speaker in named.speakers.items()}
    genders, warnings = read_genders(rows, ids)
    return Named(speakers, genders, named.rejects, named.warnings + warnings)


def _name_by_parent(names: Sequence[str], regex: str, rows: list["Row"], root: Path) -> Named:
    speakers, folders = {}, {}
    for name in names:
        parent = PurePosixPath(name).parent
        if parent.name:
            speakers[name] = parent.name
            folders.setdefault(parent.name, set()).add(str(parent))
    rejects = {name: "lies in no speaker's folder" for name in names if name not in speakers}
    merged = [f"{speaker} ({name_some(sorted(own), 2)})" for speaker, own in folders.items()
              if len(own) > 1]
    deep = [name for name in speakers if name.count("/") > 1]
    advice = ("If another folder of the path is the speaker, name it, for instance with "
              "--spk_from regex --regex '^(?P<spk>[^/]+)/'")
    warnings = []
    if merged:
        warnings = [f"{len(merged)} speakers have recordings in several folders, which are taken "
                    f"for one person's: {name_some(merged, 3)}. {advice}"]
    elif deep:
        warnings = [f"the innermost folder is taken for the speaker: '{deep[0]}' is of "
                    f"'{speakers[deep[0]]}'. {advice}"]
    return Named(speakers, rejects=rejects, warnings=warnings)


def _name_by_regex(names: Sequence[str], regex: str, rows: list["Row"], root: Path) -> Named:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ValueError(f"--regex {regex!r}: no regular expression ({error})") from error
    if "spk" not in pattern.groupindex:
        raise ValueError(f"--regex {regex!r}: want a group called spk, as in (?P<spk>[^/]+)")
    matches = {name: pattern.search(name) for name in names}
    speakers = {name: match["spk"] for name, match in matches.items() if match and match["spk"]}
    return Named(speakers, rejects={name: "the regular expression finds no speaker in the path"
                                    for name in names if name not in speakers})


def _name_by_table(names: Sequence[str], regex: str, rows: list["Row"], root: Path) -> Named:
    speakers, absent, known = {}, [], set(names)
    for row in rows:
        path, speaker = row.get(PATH_COLUMNS), row.get(SPEAKER_COLUMNS)
        # Tables are written with ./ in front, with absolute paths, or as here.
        name = path.removeprefix(f"{root}/").removeprefix("./").replace("\\", "/")
        if name not in known:
            absent.append(path)
        elif speakers.setdefault(name, speaker) != speaker:
            raise ValueError(f"{row.where}: {path} is said to be of {speaker}, above of "
                             f"{speakers[name]}; correct one of the lines")
    warnings = [] if not absent else [
        f"{len(absent)} lines of the table name no recording below the folder: "
        f"{name_some(absent, 3)}"]
    return Named(speakers, warnings=warnings, rejects={
        name: "the table does not name it" for name in names if name not in speakers})


# What --spk_from may be.
WAYS: dict[str, Callable[[Sequence[str], str, list["Row"], Path], Named]] = {
    "parent": _name_by_parent, "regex": _name_by_regex, "csv": _name_by_table}


@dataclass(frozen=True)
class Row:
    """A line of a table: where it stands, and column in lower case -> text."""

    where: str
    fields: dict[str, str]

    def get(self, columns: Sequence[str]) -> str:
        """The first of these columns that there is.

        Raises:
            ValueError: there is none, or nothing stands in it.
        """
        for column in columns:
            if column in self.fields:
                if self.fields[column]:
                    return self.fields[column]
                raise ValueError(f"{self.where}: nothing in the column {column}; fill it in or "
                                 f"remove the line")
        raise ValueError(f"{self.where}: no column {columns[0]} (or {', '.join(columns[1:])}) in "
                         f"the first line, which has {', '.join(self.fields)}; name one so")

    def has(self, columns: Sequence[str]) -> bool:
        """Whether there is one of these columns with something in it."""
        return any(self.fields.get(column) for column in columns)


def read_rows(path: str | Path) -> list[Row]:
    """Read a table with commas, semicolons or tabs whose first line names the columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no lines, or a line with another number of columns.
    """
    lines = read_lines(path)
    if len(lines) < 2:
        raise ValueError(f"{path}: want a line with the names of the columns and lines below it")
    separator = max("\t;,", key=lines[0].count)
    reader = csv.reader(lines, delimiter=separator)
    rows, columns = [], []
    try:
        for fields in reader:
            where, fields = f"{path}:{reader.line_num}", [text.strip() for text in fields]
            if not columns:
                columns = [column.lower() for column in fields]
            elif len(fields) == len(columns):
                rows.append(Row(where, dict(zip(columns, fields, strict=True))))
            elif any(fields):
                raise ValueError(f"{where}: {len(fields)} columns, the first line has "
                                 f"{len(columns)}")
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from error
    return rows


def read_genders(rows: Sequence[Row], ids: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Read the speakers' genders from a table; what is neither male nor female is not known.

    Args:
        rows: of the table; none, or none with a gender, where nothing is known.
        ids: speaker as in the table -> id.

    Returns:
        Id -> `m` or `f`, and warnings.

    Raises:
        ValueError: a speaker with both.
    """
    genders: dict[str, str] = {}
    for row in rows:
        if not (row.has(GENDER_COLUMNS) and row.has(SPEAKER_COLUMNS)):
            continue
        speaker = ids.get(row.get(SPEAKER_COLUMNS))
        gender = GENDERS.get(row.get(GENDER_COLUMNS).lower())
        if speaker and gender and genders.setdefault(speaker, gender) != gender:
            raise ValueError(f"{row.where}: {speaker} is {gender} here and {genders[speaker]} "
                             f"above; correct one of the lines")
    unknown = len(ids) - len(genders)
    if genders and unknown:
        return genders, [f"the gender of {unknown} of {len(ids)} speakers is not known; trials "
                         f"pair them among themselves"]
    return genders, []


def _make_speaker_ids(speakers: Sequence[str]) -> dict[str, str]:
    """Speaker -> id without blanks.

    Raises:
        ValueError: two speakers would share an id.
    """
    ids: dict[str, str] = {}
    for speaker in speakers:
        other = ids.setdefault(join_blanks(speaker), speaker)
        if other != speaker:
            raise ValueError(f"the speakers {other!r} and {speaker!r} would both be called "
                             f"{join_blanks(speaker)!r}; rename one")
    return {speaker: name for name, speaker in ids.items()}
