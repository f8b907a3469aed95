"""What a consumer goes through, and what must hold when all is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Literal, TypeAlias

from headrace import RetryLater, Service
from headrace.errors import ConditionFailed, Refused, Throttled
from headrace.limits import SQS_ATTRIBUTES
from tests.crash import bells, troubles
from tests.crash.bells import RopePulled
from tests.crash.troubles import (
    COMMITS,
    Trouble,
    but_once,
    down,
    lost,
    once,
    refused,
    rival,
    slow,
)

Fate: TypeAlias = Literal["done", "dead letter", "parked"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way of some messages through a consumer.

    `messages` come in one batch, as of one FIFO group where the service's queue is FIFO, and each
    as often as `copies` says; `same_bell` has them change one entity, each has so many message
    `attributes`, and `at_a_time` is how many are handled at once. `goes_wrong` makes the
    trouble of the life that is to end, from the bell of its first message; `before` those of the
    lives before it, each of which ends by itself.

    When all is over, each message is gone. By its `fate` it had its effect once, or it is a dead
    letter without an effect; where the fate is to be parked, the first is a dead letter, and those
    behind it are in the table, in order, without an effect. Then a handler that is `recorded` has
    a record that is done; a handler that `writes` has changed its entities, and one that `says`
    anything has been heard, of which one that is `terse` says but the one thing.
    `unmarked` says that the life leaves records behind that are not marked as done, though
    nothing ends it.
    """

    name: str
    service: Service = bells.belfry
    goes_wrong: Callable[[str], Trouble] = lambda bell: troubles.none
    before: Sequence[Callable[[str], Trouble]] = ()
    messages: int = 1
    copies: int = 1
    same_bell: bool = False
    attributes: int = 0
    deadline: timedelta | None = None
    at_a_time: int = 10
    fate: Fate = "done"
    recorded: bool = True
    writes: bool = True
    says: bool = True
    terse: bool = False
    unmarked: bool = False
    on_emulators: bool = False

    def fate_of(self, number: int) -> Fate:
        """Of the message of this number, counted from 0."""
        return "dead letter" if self.fate == "parked" and number == 0 else self.fate

    @property
    def queue(self) -> str:
        return self.service.queues[0]

    @property
    def is_fifo(self) -> bool:
        return self.queue.endswith(".fifo")

    @property
    def table(self) -> str:
        return self.service.table or ""

    def pulls(self, tag: str) -> list[RopePulled]:
        """The messages of one run; nothing of another's `tag` has to do with them."""
        return [
            RopePulled(pull=f"{tag}.{n}", bell=tag if self.same_bell else f"{tag}.{n}")
            for n in range(self.messages)
        ]


def first(trouble: Trouble, *methods: str) -> Callable[[str], Trouble]:
    """The trouble at the first of these calls in a life, and at no other."""
    return lambda bell: once(trouble, *methods)


def later(trouble: Trouble, *methods: str) -> Callable[[str], Trouble]:
    """The trouble at all of these calls in a life but the first."""
    return lambda bell: but_once(trouble, *methods)


def always(trouble: Trouble) -> Callable[[str], Trouble]:
    return lambda bell: trouble


_A_MINUTE = 60.0
_SOON = timedelta(seconds=30)

SCENARIOS: Final = (
    # --- kinds of handlers and batches ---
    Scenario("plain", on_emulators=True),
    Scenario("three at once", messages=3, on_emulators=True),
    Scenario("three on one entity", messages=3, same_bell=True),
    Scenario("one twice at once", copies=2),
    Scenario("a FIFO group of two", bells.in_line, messages=2, same_bell=True),
    Scenario("not in groups", bells.alone, messages=2),
    Scenario("all kinds of reads", bells.looking),
    Scenario("a condition that does not hold", bells.unseen, messages=2, same_bell=True),
    Scenario("a plain function", bells.plain),
    Scenario("nothing to write", bells.saying, writes=False),
    Scenario("one thing to say", bells.terse, messages=3, terse=True, on_emulators=True),
    Scenario("an idempotent write", bells.anyhow, recorded=False, says=False),
    Scenario("idempotent messages", bells.repeating, recorded=False, writes=False),
    Scenario("what is due much later", bells.reminding),
    Scenario("what is due soon", bells.reminding_soon),
    Scenario("a saga", bells.pealing, writes=False, on_emulators=True),
    Scenario("three sagas at once", bells.pealing, messages=3, writes=False),
    Scenario("a saga that begins twice at once", bells.pealing, copies=2, writes=False),
    Scenario(
        "lost answers to the commits of a saga",
        bells.pealing,
        goes_wrong=always(lost(*COMMITS)),
        writes=False,
    ),
    Scenario(
        "an answer for a saga that nobody knows",
        bells.dozing,
        recorded=False,
        writes=False,
        says=False,
    ),
    # --- what was there before ---
    Scenario("a duplicate", before=[always(down("delete"))]),
    Scenario(
        "what another left unsent",
        before=[always(down("put", "send", error=Refused))],
    ),
    Scenario("what another left half sent", before=[always(down("put"))]),
    # --- reads ---
    Scenario("a read refused", goes_wrong=first(down("get", error=Refused), "get")),
    Scenario("reads refused", goes_wrong=always(down("get", error=Refused))),
    Scenario("reads unanswered", goes_wrong=always(down("get"))),
    # --- the handler ---
    Scenario("a handler that raises", goes_wrong=first(lost("handle"), "handle")),
    Scenario(
        "a handler that asks for later",
        goes_wrong=always(down("handle", error=partial(RetryLater, delay=_SOON))),
    ),
    Scenario(
        "the first of a group fails",
        bells.in_line,
        goes_wrong=first(down("handle"), "handle"),
        messages=2,
        same_bell=True,
    ),
    Scenario("a slow handler", bells.hurried, goes_wrong=always(slow("handle", seconds=_A_MINUTE))),
    # --- leases ---
    Scenario("a leased handler", bells.leased),
    Scenario("a short lease", bells.briefly, on_emulators=True),
    Scenario("a lease that is held", bells.leased, copies=2),
    Scenario("a lease that is waited for", bells.awaiting, copies=2),
    Scenario(
        "a lease that is renewed",
        bells.leased,
        goes_wrong=always(slow("handle", seconds=_A_MINUTE)),
    ),
    Scenario(
        "a lease that is lost",
        bells.leased,
        goes_wrong=lambda bell: troubles.both(
            slow("handle", seconds=_A_MINUTE),
            but_once(down("change", error=ConditionFailed), "change"),
        ),
    ),
    Scenario(
        "a lease that cannot be renewed",
        bells.leased,
        goes_wrong=lambda bell: troubles.both(
            slow("handle", seconds=_A_MINUTE), but_once(down("change"), "change")
        ),
    ),
    Scenario(
        "a leased handler that raises",
        bells.leased,
        goes_wrong=first(lost("handle"), "handle"),
    ),
    Scenario(
        "a leased handler that fails",
        bells.leased,
        goes_wrong=first(down("handle", error=ValueError), "handle"),
    ),
    Scenario(
        "a lost answer to the count of a failure",
        bells.leased,
        goes_wrong=lambda bell: troubles.both(
            down("handle", error=ValueError), but_once(lost("change"), "change")
        ),
    ),
    Scenario(
        "a count of failures that cannot be read",
        bells.leased,
        goes_wrong=always(troubles.both(down("handle", error=ValueError), down("get"))),
    ),
    Scenario(
        "a lease that is over before the commit",
        bells.awaiting,
        goes_wrong=first(slow(*COMMITS, seconds=2 * bells.LEASE.total_seconds()), "transact"),
        copies=2,
    ),
    Scenario(
        "a lease that is taken slowly",
        bells.leased,
        goes_wrong=first(slow("change", seconds=bells.LEASE.total_seconds() / 2), "change"),
    ),
    Scenario("a lost answer to a lease", bells.leased, goes_wrong=first(lost("change"), "change")),
    # --- the commit ---
    Scenario(
        "another writer",
        goes_wrong=lambda bell: once(rival("belfry", bell), *COMMITS),
    ),
    Scenario(
        "another writer beside two more",
        goes_wrong=lambda bell: once(rival("belfry", bell), *COMMITS),
        messages=3,
    ),
    Scenario("commits throttled", goes_wrong=always(down(*COMMITS, error=Throttled))),
    Scenario(
        "a group refused", goes_wrong=first(down(*COMMITS, error=Refused), *COMMITS), messages=3
    ),
    Scenario("a lost answer to the commit", goes_wrong=first(lost(*COMMITS), *COMMITS)),
    Scenario("lost answers to three commits", goes_wrong=always(lost(*COMMITS)), messages=3),
    # --- dispatch ---
    Scenario(
        "lost answers of the scheduler",
        bells.reminding,
        goes_wrong=always(lost("schedule", "cancel")),
    ),
    Scenario("the scheduler down", bells.reminding, goes_wrong=always(down("schedule", "cancel"))),
    Scenario("a throttled bus", goes_wrong=first(down("put", error=Throttled), "put")),
    Scenario("a throttled queue", goes_wrong=first(refused("send", retryable=True), "send")),
    Scenario("lost answers of bus and queue", goes_wrong=always(lost("put", "send"))),
    Scenario(
        "three events refused at once",
        goes_wrong=first(down("put", error=Refused), "put"),
        messages=3,
    ),
    Scenario("the bus down", goes_wrong=always(down("put"))),
    Scenario("a bus that refuses", goes_wrong=always(refused("put"))),
    Scenario(
        "a throttled bus for one thing to say",
        bells.terse,
        goes_wrong=first(down("put", error=Throttled), "put"),
        terse=True,
    ),
    Scenario(
        "the bus down for one thing to say",
        bells.terse,
        goes_wrong=always(down("put")),
        terse=True,
    ),
    Scenario("a bus that cannot be seen", goes_wrong=always(down("require", error=Throttled))),
    # --- deleted, and marked as done ---
    Scenario("deletes failing", goes_wrong=always(down("delete"))),
    Scenario("deletes refused", goes_wrong=always(refused("delete"))),
    Scenario("done marks failing", goes_wrong=always(down("write")), unmarked=True),
    # --- no more time ---
    Scenario(
        "a commit past its deadline",
        goes_wrong=always(slow(*COMMITS, seconds=_A_MINUTE)),
        deadline=_SOON,
    ),
    Scenario(
        "a read past its deadline",
        goes_wrong=always(slow("get", seconds=_A_MINUTE)),
        deadline=_SOON,
    ),
    Scenario(
        "a dispatch past its deadline",
        goes_wrong=always(slow("put", "send", seconds=_A_MINUTE)),
        deadline=_SOON,
    ),
    Scenario("no time to start", deadline=timedelta(0)),
    Scenario("one waits for the other", messages=2, at_a_time=1),
    # --- dead letters ---
    Scenario("a last attempt", bells.cracked, before=[always(troubles.none)], fate="dead letter"),
    Scenario("poison under a lease", bells.barred, fate="dead letter"),
    Scenario("poison", bells.closed, fate="dead letter"),
    Scenario(
        "poison that cannot be copied",
        bells.closed,
        goes_wrong=always(down("send")),
        fate="dead letter",
    ),
    Scenario(
        "poison whose copy is refused",
        bells.closed,
        goes_wrong=always(refused("send")),
        fate="dead letter",
    ),
    # --- parked behind a dead letter ---
    Scenario("two behind poison", bells.in_waiting, messages=3, same_bell=True, fate="parked"),
    Scenario(
        "no room for a note behind poison",
        bells.in_waiting,
        messages=2,
        same_bell=True,
        attributes=SQS_ATTRIBUTES,
        fate="dead letter",
    ),
    Scenario(
        "behind poison, and not parked to the last",
        bells.impatient,
        before=[always(down("transact", "delete"))] * 2,
        goes_wrong=first(down("transact"), "transact"),
        messages=2,
        same_bell=True,
        fate="dead letter",
    ),
    Scenario(
        "behind poison that comes again",
        bells.in_waiting,
        before=[always(down("delete"))],
        messages=2,
        same_bell=True,
        fate="parked",
    ),
    Scenario(
        "a lost answer to a block and to what is parked",
        bells.in_waiting,
        goes_wrong=always(troubles.both(lost("change"), lost("transact"))),
        messages=2,
        same_bell=True,
        fate="parked",
    ),
)

UNREACHED: Final[Mapping[str, str]] = {
    "headrace.inbox:Inbox.pending": "The relay reads the index; no delivery passes there.",
    "headrace.settle:_Orders.give": "Waits once a thousand deletes are on their way.",
}
"""Functions on the path that no scenario passes, each with the reason."""


def named(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)
