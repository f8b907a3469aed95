"""Bad input, and unusual input: what arrives on the ledger's queue, and what is to become of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from headrace.limits import MIB
from headrace.ports import Attribute
from tests.integration.hosts.bank import (
    Audited,
    Deposited,
    OpenAccount,
    Withdrawn,
)
from tests.integration.hosts.bodies import bridged, event, metadata, notified


@dataclass(frozen=True, slots=True)
class Case:
    """A message and its fate: `reason` is a pattern that its dead letter's reason matches, and
    `None` says that it is handled, which shows in an account named `account`."""

    name: str
    body: str
    reason: str | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    noted: bool = True
    """Whether there is room for the reason beside the message."""

    @property
    def account(self) -> str:
        return account_of(self.name)


def account_of(name: str) -> str:
    return f"account of {name}"


def good(account: str) -> str:
    """A deposit of 5 that nothing is wrong with."""
    return event(Deposited(account=account, amount=5), id=f"good-{account}")


def deposit(name: str, **data: Any) -> dict[str, Any]:
    """The detail of a deposit of 5; fields that are given as `...` are left out."""
    meta = metadata("Deposited", id=name, version=2)
    given = {"account": account_of(name), "amount": 5, **data}
    return {"metadata": meta, "data": {k: v for k, v in given.items() if v is not ...}}


def with_metadata(name: str, **changes: Any) -> str:
    """A deposit with other metadata; fields that are given as `...` are left out."""
    detail = deposit(name)
    changed = {**detail["metadata"], **changes}
    detail["metadata"] = {k: v for k, v in changed.items() if v is not ...}
    return bridged("Deposited", detail)


def as_metadata(value: object) -> str:
    return bridged("Deposited", {"metadata": value, "data": deposit("x")["data"]})


def filled(body: str, size: int) -> str:
    """The body with its `@` replaced by as many letters as make it `size` bytes long."""
    return body.replace("@", "x" * (size - len(body.encode()) + 1))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def attributes(count: int) -> dict[str, Attribute]:
    """As many attributes of a sender's own, one of them binary."""
    own = {f"own-{number}": Attribute(f"value {number}") for number in range(1, count)}
    return {"own-0": Attribute(b"\x00\xff", "Binary.png"), **own}


TYPED = {"detail-type": Attribute("Deposited")}

NO_JSON = (
    Case("words", "good morning", "body is not JSON"),
    Case("cut off", good("x")[:-9], "body is not JSON"),
    Case("two objects", "{} {}", "body is not JSON"),
    Case("byte order mark", "\ufeff" + good("x"), "body is not JSON"),
    Case("white space", " \t\r\n ", "body is empty"),
    Case("a megabyte of words", "x" * MIB, "body is not JSON", noted=False),
    Case("lone surrogate escape", good("x").replace("good-x", "\\ud800"), "body is not JSON"),
    Case("reversed surrogate escapes", '{"detail-type": "\\udc00\\ud800"}', "body is not JSON"),
    Case("bad escape", good("x").replace("good-x", "\\uZZZZ"), "body is not JSON"),
    Case("NaN", bridged("Deposited", deposit("NaN", amount=float("nan"))), "body is not JSON"),
    Case("infinity", '{"detail-type": Infinity}', "body is not JSON"),
    Case("deep nesting", nested(100_000), "body is not JSON"),
)

WRONG_SHAPE = (
    Case("array", "[1, 2]", "JSON array, not an object"),
    Case("string", '"hello"', "JSON string, not an object"),
    Case("number", "7", "JSON number, not an object"),
    Case("true", "true", "JSON boolean, not an object"),
    Case("null", "null", "JSON null, not an object"),
    Case("no type", '{"account": "A", "amount": 5}', "does not say what it is"),
    Case("empty object", "{}", "does not say what it is"),
    Case("type not text", json.dumps({"detail-type": 7, "detail": {}}), "7, not a name"),
    Case("detail an array", bridged("Deposited", []), "detail of Deposited is a JSON array"),
    Case("detail a string", bridged("Deposited", "{}"), "detail of Deposited is a JSON string"),
    Case("detail null", bridged("Deposited", None), "detail of Deposited is a JSON null"),
    Case(
        "no data",
        bridged("Deposited", {"metadata": deposit("no data")["metadata"]}),
        "data of Deposited is a JSON null",
    ),
    Case(
        "wrong field type",
        bridged("Deposited", deposit("wrong field type", amount="much")),
        "Deposited is not valid: amount: ",
    ),
    Case(
        "field missing",
        bridged("Deposited", deposit("field missing", amount=...)),
        "amount: Field required",
    ),
    Case(
        "wrong key that SQS does not carry",
        bridged("Deposited", deposit("wrong key", tags={"\uffff": "x"})),
        "Deposited is not valid: tags",
    ),
    Case(
        "nesting in a field that is not known",
        bridged("Deposited", deposit("deep", more=...)).replace(
            '"amount"', f'"more": {nested(300)}, "amount"'
        ),
        "[Rr]ecursion limit",
    ),
)

WRONG_TYPE = (
    Case("unknown type", bridged("Robbed", {"account": "A"}), "'Robbed' is no event"),
    Case(
        "long unknown type",
        json.dumps({"detail-type": "y" * (MIB // 2), "detail": {}}),
        "is no event that this service knows",
    ),
    Case(
        "wrong queue",
        event(Audited(account="A"), id="wrong queue"),
        "Audited arrived on the queue 'ledger', where nothing handles it",
    ),
    Case(
        "another source",
        bridged("Deposited", deposit("another source"), source="bank.other"),
        "came from the source 'bank.other'",
    ),
    Case(
        "newer version",
        with_metadata("newer version", version=3),
        "at version 3, and this service reads up to 2",
    ),
    Case(
        "older version without an upcaster",
        event(Withdrawn(account="A", amount=-5), id="too old", version=1),
        "at version 1, and nothing upcasts it to 3",
    ),
    Case(
        "older version that cannot be upcast",
        bridged("Deposited", {"metadata": metadata("Deposited", id="old"), "data": {}}),
        "could not be upcast: KeyError",
    ),
)

WRONG_METADATA = (
    Case("metadata null", as_metadata(None), "metadata of Deposited is not valid"),
    Case("metadata an array", as_metadata([1]), "metadata of Deposited is not valid"),
    Case("metadata a string", as_metadata("m"), "metadata of Deposited is not valid"),
    Case("metadata empty", as_metadata({}), "metadata of Deposited is not valid"),
    Case("no time", with_metadata("no time", time=...), "time: Field required"),
    Case("wrong time", with_metadata("wrong time", time="noon"), "time: Input should be"),
    Case("time without a zone", with_metadata("zone", time="2026-11-21T12:00:00"), "timezone"),
    Case("wrong version", with_metadata("wrong version", version="two"), "version: Input should"),
    Case("version 0", with_metadata("version 0", version=0), "version: Input should"),
    Case("id a number", with_metadata("id a number", id=5), "id: Input should be a valid string"),
    Case("empty id", with_metadata("empty id", id=""), "id: String should have at least 1"),
    Case("long id", with_metadata("long id", id="x" * 257), "id: String should have at most 256"),
    Case("two names", with_metadata("two names", type="Forged"), "metadata says 'Forged'"),
    Case(
        "nesting in the metadata",
        with_metadata("deep").replace('"version"', f'"more": {nested(300)}, "version"'),
        "[Rr]ecursion limit",
    ),
    Case(
        "long id of another producer",
        bridged("Deposited", deposit("long")["data"], id="x" * 257),
        "id: String should have at most 256",
    ),
)

ATTRIBUTES = (
    Case("ten attributes", "good morning 10", "body is not JSON", attributes(10), noted=False),
    Case("nine attributes", "good morning 9", "body is not JSON", attributes(9)),
    Case(
        "attribute of an unknown type",
        '{"account": "A"}',
        "'Robbed' is no event",
        {"detail-type": Attribute("Robbed")},
    ),
    Case(
        "binary type attribute",
        '{"account": "B"}',
        "not a name",
        {"detail-type": Attribute(b"\x00", "Binary")},
    ),
    Case("notification of words", notified("good morning"), "body is not JSON"),
    Case("notification of a bare payload", notified('{"account": "A"}'), "does not say what it is"),
)

REFUSED = (*NO_JSON, *WRONG_SHAPE, *WRONG_TYPE, *WRONG_METADATA, *ATTRIBUTES)

HANDLED = (
    Case("plain event", bridged("Deposited", deposit("plain event"))),
    Case("no source", json.dumps({"detail-type": "Deposited", "detail": deposit("no source")})),
    Case("metadata and data alone", json.dumps(deposit("metadata and data alone"))),
    Case("unknown fields", bridged("Deposited", deposit("unknown fields", colour="red"))),
    Case(
        "repeated key",
        bridged("Deposited", deposit("repeated key")).replace(
            '"amount": 5', '"amount": 4, "amount": 5'
        ),
    ),
    Case("escapes", bridged("Deposited", deposit("escapes", note="\x00\uffff\U0001f600"))),
    Case(
        "older version with an upcaster",
        bridged(
            "Deposited",
            {
                "metadata": metadata("Deposited", id="older"),
                "data": {"account": account_of("older version with an upcaster"), "sum": 5},
            },
        ),
    ),
    Case(
        "older version that is readable as it is",
        event(
            Withdrawn(account=account_of("older version that is readable as it is"), amount=-5),
            id="w-2",
            version=2,
        ),
    ),
    Case(
        "a megabyte",
        filled(bridged("Deposited", deposit("a megabyte", note="@")), MIB),
    ),
    Case(
        "native event",
        bridged(
            "Scanned",
            {"bucket": {"name": "cheques"}, "object": {"key": account_of("native event")}},
            source="bank.scanner",
            id="native-1",
        ),
    ),
    Case(
        "event of a producer without metadata",
        bridged(
            "Deposited",
            deposit("event of a producer without metadata")["data"],
            id="other-1",
        ),
    ),
    Case("notification", notified(bridged("Deposited", deposit("notification")))),
    Case(
        "notification of a bare payload with a type",
        notified(
            json.dumps(deposit("notification of a bare payload with a type")["data"]),
            **{"detail-type": "Deposited"},
        ),
    ),
    Case(
        "raw notification",
        bridged("Deposited", deposit("raw notification")),
        attributes={"topic": Attribute("teller")},
    ),
    Case("type attribute", json.dumps(deposit("type attribute")["data"]), attributes=TYPED),
    Case(
        "type attribute and nine others",
        json.dumps(deposit("type attribute and nine others")["data"]),
        attributes={**TYPED, **attributes(9)},
    ),
    Case(
        "command",
        event(OpenAccount(account=account_of("command")), id="command"),
    ),
)

CASES = (*HANDLED, *REFUSED)
