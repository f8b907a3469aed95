"""Write the JSON Schema of every contract: `python -m schemas.export`.

A file that was published under a version is never changed in meaning: a change of shape is
a new version of the event, with an upcaster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from headrace.events import MessageType, contract_of, json_schema, registry

FOLDER = Path(__file__).parent / "json"


def contracts() -> Iterator[MessageType]:
    """Every event and command of this package, sorted by name."""
    for module in iter_modules([str(Path(__file__).parent)], "schemas."):
        import_module(module.name)
    return (cls for cls in registry if cls.__module__.startswith("schemas."))


def file_of(cls: MessageType) -> Path:
    contract = contract_of(cls)
    return FOLDER / f"{contract.name}.v{contract.version}.json"


def text_of(cls: MessageType) -> str:
    return json.dumps(json_schema(cls), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for cls in contracts():
        file_of(cls).write_text(text_of(cls), encoding="utf-8")


if __name__ == "__main__":
    main()
