"""The Dockerfile and the compose file, read as far as tests need them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # ships no types

ROOT: Final = Path(__file__).parents[2]


@dataclass(slots=True)
class Stage:
    """One `FROM` of a Dockerfile: its name, what it begins with, and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        return [text for kind, text in self.instructions if kind == instruction][-1]

    def copied(self, **arguments: str) -> Iterator[tuple[str, str]]:
        """What is copied from the checkout, and where to, as these build arguments say."""
        for kind, text in self.instructions:
            words = shlex.split(Template(text).safe_substitute(arguments))
            if kind == "COPY" and not words[0].startswith("--from="):
                yield from ((source, words[-1]) for source in words[:-1])

    def arguments(self) -> dict[str, str]:
        """The build arguments with their defaults."""
        given = [text.partition("=") for kind, text in self.instructions if kind == "ARG"]
        return {name: default for name, _, default in given}


def stages(text: str) -> dict[str, Stage]:
    """Of a Dockerfile, by their names."""
    found: dict[str, Stage] = {}
    for line in _lines(text):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(name, base)
        elif found:
            [*found.values()][-1].instructions.append((instruction, rest.strip()))
    return found


def _lines(text: str) -> Iterator[str]:
    """Without comments, and with what goes on in the next line put together."""
    told = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    yield from "\n".join(told).replace("\\\n", "").splitlines()


def exec_form(text: str) -> list[str]:
    """The words of a command that no shell reads. Raises `ValueError` for one that a shell does."""
    words = json.loads(text)
    assert isinstance(words, list)
    return words


def health_command(stage: Stage) -> list[str]:
    return exec_form(stage.last("HEALTHCHECK").partition("CMD ")[2])


def compose() -> Mapping[str, Any]:
    """The compose file, with its anchors put in."""
    read: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read


def dockerfile() -> dict[str, Stage]:
    return stages((ROOT / "Dockerfile").read_text())


def sent_to_builder(path: str) -> bool:
    """Whether `.dockerignore`, which leaves out all that it does not name, lets this path in."""
    named = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line.removeprefix("!") for line in named if line.startswith("!")]
    return any(path == each or path.startswith(f"{each}/") for each in let_in)
