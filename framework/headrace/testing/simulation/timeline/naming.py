"""Short names for the events of a run, in place of their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from string import ascii_lowercase
from typing import Final

from headrace.record import KEY_PREFIX
from headrace.testing.simulation.trace import Entry, Kind

_UUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_MESSAGE: Final = re.compile(
    r"(?:receives|sends|puts) (?P<type>.+?)(?= from | to | on the bus | into |$)"
)
_RECORD: Final = re.compile(rf"{re.escape(KEY_PREFIX)}(?P<consumer>\S+?)#(?={_UUID.pattern})")
_SHORT: Final = 8
_OF_ONE_MESSAGE: Final = frozenset({Kind.SENT, Kind.RECEIVED})


class Names:
    """What the events of a run are called: `OrderPlaced b` is the OrderPlaced of the second story.

    A story is everything that came of one message from outside. Stories have letters, in the order
    in which they begin. The second event of one type in a story is `OrderPlaced b2`. Ids of which
    nothing is known are cut to their first characters, as many as tell them apart.
    """

    def __init__(self, entries: Sequence[Entry], *other_texts: str) -> None:
        messages = [entry for entry in entries if entry.kind in _OF_ONE_MESSAGE and entry.about]
        self._letters = _stories(entry.about for entry in messages)
        self._types = _types(messages)
        self._names = dict(_named(self._types, self._letters))
        texts = (*(entry.text for entry in entries), *other_texts)
        self._length = _telling_apart({id for text in texts for id in _UUID.findall(text)})

    def of_events(self) -> Mapping[str, str]:
        """The names of all events by their ids, in the order of their appearance."""
        return self._names

    def story(self, entry: Entry) -> str:
        """The letter of the story that an entry belongs to; `""` if it belongs to none."""
        letters = (self._letters.get(id, "") for id in entry.about)
        return next(filter(None, letters), "")

    def told(self, entry: Entry) -> str:
        """The text of an entry, with the name of each event that it is about."""
        text, ids = self.in_text(entry.text), _subjects(entry)
        for id in ids:
            text = self._with_name(text, id, first=entry.kind in _OF_ONE_MESSAGE)
        names = dict.fromkeys(self._names[id] for id in ids if id in self._names)
        untold = [name for name in names if not _places(text, name)]
        return f"{text} [{', '.join(untold)}]" if untold else text

    def in_text(self, text: str) -> str:
        """A text with names for the ids in it."""
        text = _RECORD.sub(r"the record of \g<consumer> for ", text)
        return _UUID.sub(lambda found: self._short(found[0]), text)

    def _short(self, id: str) -> str:
        return self._names.get(id, id[: self._length])

    def _with_name(self, text: str, id: str, *, first: bool) -> str:
        """The type of an event becomes its name, where a text says it."""
        name, type_ = self._names.get(id), self._types.get(id)
        if name is None or type_ is None or _places(text, name):
            return text
        places = _places(text, type_)
        if not places:
            return text
        start = places[0 if first else -1]
        return f"{text[:start]}{name}{text[start + len(type_) :]}"


def _subjects(entry: Entry) -> tuple[str, ...]:
    """The ids of the events themselves, without those of their causes."""
    return entry.about[:1] if entry.kind in _OF_ONE_MESSAGE else entry.about


def _stories(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """The letter of each id. Ids that were once together have the same."""
    root: dict[str, str] = {}

    def root_of(id: str) -> str:
        while root.setdefault(id, id) != id:
            id = root[id]
        return id

    for first, *others in together:
        for other in others:
            root[root_of(other)] = root_of(first)
        root_of(first)
    roots = {id: root_of(id) for id in root}
    letters = {story: _letter(n) for n, story in enumerate(dict.fromkeys(roots.values()))}
    return {id: letters[story] for id, story in roots.items()}


def _letter(number: int) -> str:
    """`a` to `z`, then `aa` and so on."""
    before, last = divmod(number, len(ascii_lowercase))
    return f"{_letter(before - 1) if before else ''}{ascii_lowercase[last]}"


def _types(messages: Iterable[Entry]) -> dict[str, str]:
    """The type of each event that was sent or received, in the order of their appearance."""
    types: dict[str, str] = {}
    for entry in messages:
        found = _MESSAGE.match(entry.text) if entry.kind in _OF_ONE_MESSAGE else None
        if found is not None:
            types.setdefault(entry.about[0], found["type"])
    return types


def _named(types: Mapping[str, str], letters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known: Counter[str] = Counter()
    for id, type_ in types.items():
        name = f"{type_} {letters[id]}"
        known[name] += 1
        yield id, name if known[name] == 1 else f"{name}{known[name]}"


def _telling_apart(ids: Collection[str]) -> int:
    """How many first characters it takes to tell these ids apart."""
    length = _SHORT
    while len({id[:length] for id in ids}) < len(ids):
        length += 1
    return length


def _places(text: str, name: str) -> list[int]:
    """Where a name stands in a text, as a word of its own."""
    return [found.start() for found in re.finditer(rf"(?<![\w.]){re.escape(name)}(?!\w)", text)]
