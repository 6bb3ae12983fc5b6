"""The site: mkdocs builds it without a complaint, it is whole, and loads nothing from elsewhere."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from blocks import REPO

from wespeaker_lap import build
from wespeaker_lap.cli import app
from wespeaker_lap.config import Config, dump_config

pytest.importorskip("mkdocs")
pytest.importorskip("material")


def list_common_options() -> set[str]:
    """The options that are those of every recipe for speaker verification."""
    scripts = [path for path in REPO.glob("egs/*/*/run.sh") if "sv.sh" in path.read_text()]
    environment = {**os.environ, "WESPEAKER_LAP_PYTHON": sys.executable}
    told = [subprocess.run(["bash", script, "--help"], env=environment, capture_output=True,
                           text=True, check=True).stdout for script in scripts]
    return set.intersection(*(set(re.findall(r"^  (--\w+) ", one, re.MULTILINE)) for one in told))


class Links(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        if tag == "a":
            self.leads.append(values.get("href") or "")
        elif tag == "link" and values.get("rel") in ("next", "prev", "canonical"):
            return
        else:
            self.loads += [values[key] for key in ("src", "href", "data", "srcset", "poster")
                           if values.get(key)]


def read_links(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the README says, every warning an error, with no way to a network."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(REPO), "NO_MKDOCS_2_WARNING": "1",
                   "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d",
               folder]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    foreign = {url for page in pages for url in read_links(page).loads if "//" in url}
    assert foreign == set()
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", text), sheet


def test_pages_lead_to_files_of_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # whose links begin at the root of wherever the site is
            continue
        for link in read_links(page).leads:
            target = link.partition("#")[0]
            if target and not re.match(r"https?:|mailto:", target):
                assert (page.parent / target).exists(), (page, link)


def test_what_is_made_from_the_code(site: Path) -> None:
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name in typer.main.get_command(app).commands:
        assert f'id="{name}"' in commands and f"wespeaker-lap {name} [OPTIONS]" in commands
    for option in list_common_options():
        assert re.search(rf"<code>{option}\b", commands), option
    settings = re.sub(r"<[^>]+>", "", (site / "configuration.html").read_text(encoding="utf-8"))
    for key in ("batch_size: 512", "top_k_penalty: 0.06", "checkpoint_steps: 500"):
        assert key in settings and key in dump_config(Config())
    for table in (build.LAYER_POOLS, build.FRAME_NETS, build.TIME_POOLS, build.HEADS):
        assert all(f"\n{name}\n" in settings for name in table)
    for page in site.glob("*.html"):
        assert "made from the code" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["repository", "reference"])
def test_the_hooks_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "docs")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
