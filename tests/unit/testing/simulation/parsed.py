"""A page of HTML, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input"}
Attributes = dict[str, str | None]


@dataclass
class Element:
    tag: str
    attributes: Attributes
    inner: list[Element] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        below = [found for each in self.inner for found in each.all(tag)]
        return [self, *below] if self.tag == tag else below

    @property
    def text(self) -> str:
        return "".join(self.said)

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()


class Page(HTMLParser):
    """The elements of a page; it fails where a tag is not closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("page", {})
        self._open = [self.root]
        self.feed(html)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].inner.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.said.append(data)

    def all(self, tag: str) -> list[Element]:
        return self.root.all(tag)

    def rows(self) -> list[Element]:
        [main] = self.all("main")
        [body] = main.all("tbody")
        return body.all("tr")

    def boxes(self) -> list[Element]:
        return [div for div in self.all("div") if "box" in div.classes]

    def box(self, text: str) -> Element:
        [found] = [box for box in self.boxes() if text in box.text]
        return found

    def columns(self) -> list[str]:
        [main] = self.all("main")
        return [head.text for head in main.all("thead")[0].all("th")]
