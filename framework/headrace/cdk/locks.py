"""Locks: which version of each package, and the hashes of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of a lock. `marker` says where it is needed; empty is everywhere."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        hashes = "".join(f" --hash={each}" for each in sorted(self.hashes))
        return f"{self.name}=={self.version}{hashes}"


def read_locks(paths: Sequence[Path], environment: Mapping[str, str] | None) -> str:
    """One lock made of several, without markers: of each package that `environment` needs, the
    one version that all who name it agree on.

    pip would look at markers as the machine on which it runs. `environment` has their variables
    where it differs from this one. Raises `ConfigurationError`.
    """
    found: dict[str, Locked] = {}
    for path in paths:
        for locked in _read(path):
            if locked.marker and not _holds(locked.marker, environment):
                continue
            known = found.setdefault(locked.name, locked)
            if known.version != locked.version:
                raise ConfigurationError(
                    f"{path} has {locked.name} {locked.version}, and another lock has "
                    f"{known.version}: compile them again, one as a constraint on the other."
                )
    return "".join(f"{locked}\n" for _, locked in sorted(found.items()))


def _read(path: Path) -> Iterator[Locked]:
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"There is no lock {path}: compile one with hashes, for instance `uv pip compile "
            f"--universal --generate-hashes pyproject.toml -o {path}`, or name another."
        ) from error
    for line in _lines(text):
        yield _parsed(line, path)


def _lines(text: str) -> Iterable[str]:
    bare = (re.sub(r"(^|\s)#.*$", "", line) for line in text.replace("\\\n", " ").splitlines())
    return (line.strip() for line in bare if line.strip())


_PINNED: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;]+)(\s*;\s*(?P<marker>.+))?"
)


def _parsed(line: str, path: Path) -> Locked:
    pinned, *hashes = re.split(r"\s+--hash=", line)
    match = _PINNED.fullmatch(pinned.strip())
    if match is None or not hashes:
        raise ConfigurationError(
            f"{path} is not a lock with hashes: it says {pinned.strip()[:80]!r}. Every line names "
            "one version and the hashes of its files, as `uv pip compile --generate-hashes` "
            "writes them."
        )
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    return Locked(name, match["version"], (match["marker"] or "").strip(), frozenset(hashes))


def _holds(marker: str, environment: Mapping[str, str] | None) -> bool:
    try:
        from packaging.markers import Marker
    except ImportError as error:
        raise ConfigurationError(
            f"The lock has a marker, {marker!r}, and `packaging` is missing, which reads it: run "
            "`pip install packaging`."
        ) from error
    return Marker(marker).evaluate(dict(environment) if environment else None)
