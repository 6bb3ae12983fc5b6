"""The fenced blocks of README.md and the pages, with the comment above that says who runs them.

`<!-- run: SCENE -->` names one of `SCENES`, or test files that run the block in small;
`<!-- needs: … -->` says what a test does not have.
"""

import re
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs" / "pages").glob("*.md"))]
RECIPE = Path("egs") / "mini" / "v1"  # the one that pages mean by "here"
# Where a block is run: at the root of a checkout with a trained system, in its recipe's folder,
# there with --dry_run true; on a corpus of one's own; on two machines.
SCENES = ("checkout", "recipe", "dry", "own_corpus", "two machines")
FENCE = re.compile(r"((?:<!-- [^\n]* -->\n)?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (run|needs|file|change): (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        line: of its first fence.
        language: behind the fence.
        kind, value: of the mark above; empty where there is none.
        text: between the fences.
    """

    page: Path
    line: int
    language: str
    kind: str
    value: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text, blocks = page.read_text(encoding="utf-8"), []
    for found in FENCE.finditer(text):
        mark = MARK.match(found[1])
        line = text.count("\n", 0, found.start(2)) + 1
        blocks.append(Block(page, line, found[2], *(mark.groups() if mark else ("", "")), found[3]))
    return blocks


def list_blocks(kind: str = "", value: str = "", language: str = "") -> list[Block]:
    """Those of all pages with this mark and language; any where none is given."""
    return [block for page in PAGES for block in read_blocks(page)
            if (not kind or block.kind == kind) and (not value or block.value == value)
            and (not language or block.language == language)]
