"""Reading the documentation as a list of things to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
_OPTION = re.compile(r"""(\w+)=(["'])(.*?)\2""")
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its `name="value"` options, and where it starts."""

    page: Path
    line: int
    language: str
    code: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.options.get("title", "")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            code=match["code"],
            options={name: value for name, _, value in _OPTION.findall(match["options"])},
        )
        for match in _FENCE.finditer(text)
    ]


def applied(diff: Block, text: str) -> str:
    """The text after the change that a `diff` block shows. What it changes must be there once."""
    lines = diff.code.splitlines(keepends=True)
    old, new = (
        "".join(line[1:] for line in lines if not line.startswith(out)) for out in ("+", "-")
    )
    assert text.count(old) == 1, f"{diff}: {old!r} is {text.count(old)} times in {diff.title}"
    return text.replace(old, new)


def links(page: Path) -> list[str]:
    """The relative links of a page, without their anchors."""
    return _LINK.findall(_FENCE.sub("", page.read_text()))
