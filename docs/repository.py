"""For mkdocs: files of the repository that pages link to come along in the site.

A page links to `../../egs/mini/v1/README.md`, which is right where the repository is looked at. In
the site that is the page `repository/egs/mini/v1/README.md`; a program or a configuration is a page
that shows it, a folder one that lists it. What those pages link to comes along, too.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = "docs/pages/"  # in the repository
COPIES = "repository/"  # in the site
LINK = re.compile(r"\]\((?!https?://|#|/)([^)#\s]+)(#[^)\s]*)?\)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash"}


def place_of(uri: str) -> str:
    """The path in the repository of what a page of the site shows.

    >>> place_of("training.md"), place_of("repository/egs/sv.sh.md")
    ('docs/pages/training.md', 'egs/sv.sh')
    """
    if not uri.startswith(COPIES):
        return PAGES + uri
    path = uri.removeprefix(COPIES)
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def uri_of(path: str) -> str:
    """The page of the site that shows a file or folder of the repository.

    >>> uri_of("docs/pages/training.md"), uri_of("egs/mini/v1/README.md"), uri_of("egs/sv.sh")
    ('training.md', 'repository/egs/mini/v1/README.md', 'repository/egs/sv.sh.md')
    """
    if path.startswith(PAGES):
        return path.removeprefix(PAGES)
    return COPIES + path if path.endswith(".md") else f"{COPIES}{path}.md"


def find_targets(text: str, place: str) -> list[str]:
    """What a page links to in the repository, as paths from its root."""
    folder = posixpath.dirname(place)
    return [posixpath.normpath(posixpath.join(folder, link)) for link, _ in LINK.findall(text)]


def show(path: str) -> str:
    """The text of the page for a file or folder of the repository."""
    place = ROOT / path
    if place.suffix == ".md":
        return place.read_text(encoding="utf-8")
    if place.is_dir():
        names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in place.iterdir())
        body = "\n".join(names)
    else:
        body = place.read_text(encoding="utf-8")
    return f"# {path}\n\n````{LANGUAGES.get(place.suffix, 'text')}\n{body}\n````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for everything that is linked to, directly or through other such pages."""
    waiting = [(file.src_uri, Path(file.abs_src_path).read_text(encoding="utf-8"))
               for file in files.documentation_pages()]
    waiting.append(("index.md", (ROOT / "README.md").read_text(encoding="utf-8")))
    while waiting:
        uri, text = waiting.pop()
        for target in find_targets(text, place_of(uri)):
            new = uri_of(target)
            if files.get_file_from_path(new) is None and (ROOT / target).exists():
                content = show(target)
                files.append(File.generated(config, new, content=content))
                waiting.append((new, content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    folder = posixpath.dirname(place_of(uri))

    def turn(found: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[1]))
        if not (ROOT / target).exists():
            return found[0]  # which mkdocs complains of
        link = posixpath.relpath(uri_of(target), posixpath.dirname(uri) or ".")
        return f"]({link}{found[2] or ''})"

    return LINK.sub(turn, markdown)
