"""Mending the body of a letter before it goes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from headrace.dlq.letters import Letter, read_letter
from headrace.errors import ConfigurationError, HeadraceError
from headrace.events import contract_of
from headrace.fields import UnknownField, unknown_fields
from headrace.service import Service
from headrace.text import xml_legal

Object: TypeAlias = dict[str, Any]


class InvalidEdit(HeadraceError):
    """An edit cannot be made, or what comes of it is not valid; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value to be set, in what the event itself says: at the field that `path` leads to."""

    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> Setting:
        """From `customer.email="a@b.c"`, or `lines.0.quantity=2`. Raises `ConfigurationError`."""
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise ConfigurationError(
                f"{text!r} sets nothing: write PATH=JSON, as in 'customer.email=\"a@b.c\"'."
            )
        try:
            return cls(tuple(path.split(".")), json.loads(value))
        except ValueError as error:
            raise ConfigurationError(
                f"What {path} is to be set to is not JSON ({error}): write PATH=JSON, as in "
                "'customer.email=\"a@b.c\"'."
            ) from error

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Edits:
    """What is to be changed in letters: single values, or the whole body of one."""

    settings: tuple[Setting, ...] = ()
    body: str | None = None

    def __bool__(self) -> bool:
        return bool(self.settings) or self.body is not None


def edited(service: Service, letter: Letter, edits: Edits) -> Letter:
    """The letter with another body, as the service would read it. Raises `InvalidEdit` with the
    sentence of whoever refuses it."""
    if not edits:
        return letter
    body = letter.delivery.body if edits.body is None else edits.body
    if edits.settings:
        body = _with(body, edits.settings)
    found = read_letter(service, letter.source, replace(letter.delivery, body=xml_legal(body)))
    if found.unreadable:
        raise InvalidEdit(f"Letter {letter.original_id} would not be valid: {found.unreadable}")
    if unknown := _unknown(found, edits.settings):
        raise InvalidEdit(f"Letter {letter.original_id} would not be valid: {unknown}")
    if letter.event_id not in (None, found.event_id):
        raise InvalidEdit(
            f"Letter {letter.original_id} would be the event {found.event_id!r} and not "
            f"{letter.event_id!r} any more: keep its id, by which its effects are known."
        )
    return replace(found, reason=letter.reason, reconstructed=letter.reconstructed)


def _unknown(letter: Letter, settings: Sequence[Setting]) -> UnknownField | None:
    """A field that is set and that the event does not have. What else it does not know may be of a
    newer sender; and of an older version nothing is known."""
    message = letter.message
    if not settings or message is None or letter.version != contract_of(message).version:
        return None
    payload = payload_in(json.loads(letter.delivery.body))
    for unknown in unknown_fields(type(message), payload):
        if any(setting.path[: len(unknown.path)] == unknown.path for setting in settings):
            return unknown
    return None


def refuse_several(edits: Edits, letters: Sequence[Letter]) -> None:
    """Raises `InvalidEdit` when one body is meant for several letters."""
    if edits.body is not None and len(letters) > 1:
        raise InvalidEdit(
            f"One body is given for {len(letters)} letters: name the letter with --id, or change "
            "single values in all of them with --set."
        )


def _with(body: str, settings: Sequence[Setting]) -> str:
    try:
        wire = json.loads(body)
    except ValueError as error:
        raise InvalidEdit(f"The body is not JSON ({error}), so give a whole one.") from error
    payload = payload_in(wire)
    for setting in settings:
        _set(payload, setting)
    return json.dumps(wire, separators=(",", ":"))


def payload_in(wire: Any) -> Object:
    """What the event itself says, in whichever wrapping; what is in it can be changed in place.
    Raises `InvalidEdit` when it cannot be found."""
    if not isinstance(wire, dict):
        raise InvalidEdit("The body is no JSON object, so it has no fields: give a whole one.")
    if wire.get("Type") == "Notification" and "Message" in wire:
        raise InvalidEdit("The body is wrapped by SNS, as text within JSON: give a whole one.")
    detail = wire.get("detail", wire)
    found = detail.get("data", detail) if _has_metadata(detail) else detail
    if not isinstance(found, dict):
        raise InvalidEdit("The event has no fields to set: give a whole body.")
    return found


def _has_metadata(detail: Any) -> bool:
    return isinstance(detail, dict) and "metadata" in detail


def _set(payload: Object, setting: Setting) -> None:
    place: Any = payload
    *way, last = setting.path
    for name in way:
        place = _within(place, name, setting)
    if isinstance(place, list):
        place[_index(place, last, setting)] = setting.value
    elif isinstance(place, dict):
        place[last] = setting.value
    else:
        raise _no_way(setting, last)


def _within(place: Any, name: str, setting: Setting) -> Any:
    if isinstance(place, list):
        return place[_index(place, name, setting)]
    if isinstance(place, dict) and name in place:
        return place[name]
    raise _no_way(setting, name)


def _index(place: list[Any], name: str, setting: Setting) -> int:
    if name.isdecimal() and int(name) < len(place):
        return int(name)
    raise InvalidEdit(
        f"{setting} leads nowhere: {name!r} is not one of the {len(place)} places of its list, "
        "which are counted from 0."
    )


def _no_way(setting: Setting, name: str) -> InvalidEdit:
    return InvalidEdit(f"{setting} leads nowhere: there is nothing at {name!r} to go into.")
