"""The pages about a corpus: numbers by hand, nothing from outside, names shown as they are."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lap.data.corpus import Corpus, Remark, Utterance, Wishes
from wespeaker_lap.data.survey import Measure
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.share import corpus_page

SECONDS = {"ann": (600.0, 1200.0, 1800.0), "ben": (3600.0,), "<i>c|d": (2.0, 4.0)}


class Reader(HTMLParser):
    """Collects tags, addresses and the cells of the tables; wrong nesting is an error."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def corpus(tmp_path):
    utts = {f"{speaker}-{n}": Utterance(f"{speaker}/{n}.wav", "x.wav", speaker,
                                        Measure(length, "", 16000 if n else 8000, 1, 0.25 * n,
                                                0.01 * n))
            for speaker, lengths in SECONDS.items() for n, length in enumerate(lengths)}
    trials = Trials(["a"] * 3, ["b"] * 3, np.array([True, False, False]))
    return Corpus(Wishes(tmp_path / "<b>wavs", tmp_path / "out"), utts, {"ann": "f", "ben": "m"},
                  {"train": ["ann", "ben"], "test": ["<i>c|d"]}, {"test": trials},
                  [("-", "/x/<u>.wav", "silent (no sample)"), ("u", "/y.wav", "silent (again)")],
                  [Remark("error", "<script>alert(1)</script>"), Remark("note", "a & b")])


def test_markdown_by_hand(corpus):
    page, _ = corpus_page.write_pages(corpus)
    text = page.read_text()
    # 3600 s + 3600 s of two speakers; 600, 1200, 1800 and 3600 s: the median is 1500
    assert "| train | 2 | 1 / 1 | 4 | 2.00 | 1 / 2 / 3 | 600.0 / 1500.0 / 3600.0 |" in text
    assert "| test | 1 | 0 / 0 | 2 | 0.00 | 2 / 2 / 2 | 2.0 / 3.0 / 4.0 |" in text
    assert "| all | 3 | 1 / 1 | 6 | 2.00 | 1 / 2 / 3 | 2.0 / 900.0 / 3600.0 |" in text
    assert "| test | 1 | 2 |" in text
    assert "| 8000 Hz | 1 | 3 |" in text and "| 16000 Hz | 1 | 3 |" in text
    assert "| silent | 2 |" in text
    # silence 0, 0.25, 0.5, 0, 0, 0.25; clipping in those that are not the first of their speaker
    assert "Silence: 16.7% of the frames on average. Clipping: 3 recordings, 2.00%" in text
    assert "- **error**: <script>" in text and "x.wav" not in text


def test_html_stands_alone_and_shows_names_as_they_are(corpus):
    _, page = corpus_page.write_pages(corpus)
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    assert not {"script", "link", "iframe", "i", "u"} & set(reader.tags)
    assert len(reader.addresses) == 4
    for address in reader.addresses:
        head, data = address.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG\r\n")
    for text in ("<script>alert(1)</script>", "a & b", "/x/<u>.wav", "<i>c|d",
                 "Corpus <b>wavs", "Recordings left out (2)", "Speakers (3)"):
        assert any(text in part for part in reader.text), text
    assert "Remarks: 1 error, 0 warnings, 1 note" in reader.text
    assert re.search(r"https?://", page.read_text()) is None


def test_long_tables_end(corpus, monkeypatch):
    monkeypatch.setattr(corpus_page, "MAX_ROWS", 2)
    _, page = corpus_page.write_pages(corpus)
    text = page.read_text()
    assert text.count("<p>and 1 more</p>") == 2  # of three rows of sets and three speakers
    assert "Speakers (3)" in text


def test_a_corpus_without_sets_or_utterances_has_pages(corpus, tmp_path):
    bare = Corpus(corpus.wishes, corpus.utts, {}, {}, {}, [], [])
    assert "| all | 3 |" in corpus_page.write_pages(bare)[0].read_text()
    empty = Corpus(corpus.wishes, {}, {}, {}, {}, corpus.rejects, corpus.remarks)
    pages = corpus_page.write_pages(empty)
    assert "| all | 0 | 0 / 0 | 0 | 0.00 | - | - |" in pages[0].read_text()
    assert all(isinstance(page, Path) and page.is_file() for page in pages)
