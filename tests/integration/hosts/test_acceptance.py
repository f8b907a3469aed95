"""The same ten messages on Lambda and on the worker, on an emulator of AWS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headrace.hosts.lambda_ import NotHandled
from tests.integration.hosts import app, app_plain
from tests.integration.hosts.bank import (
    Account,
    Bounced,
    Deposited,
    Forged,
    OpenAccount,
    Postponed,
    Stalled,
)
from tests.integration.hosts.bodies import bridged, event
from tests.integration.hosts.emulated_hosts import (
    EmulatedHost,
    Fate,
    collected,
    note_in,
    on_lambda,
    on_worker,
)
from tests.integration.hosts.memory_hosts import OnLambda, cloud_for

pytestmark = pytest.mark.emulator


def deposited(id: str, account: str, *, bridge_id: str = "bridge-1") -> str:
    return event(Deposited(account=account, amount=5), id=id, bridge_id=bridge_id)


TEN: dict[str, tuple[str, Fate]] = {
    "ok": (deposited("d-1", "A"), "acked"),
    "duplicate": (deposited("d-1", "A", bridge_id="bridge-2"), "acked"),
    "failing": (event(Bounced(account="D"), id="n-1"), "comes again"),
    "ok for B": (deposited("d-2", "B"), "acked"),
    "poison": (event(Forged(account="E"), id="f-1"), "dead letter"),
    "not json": ("good morning", "dead letter"),
    "also for B": (deposited("d-3", "B"), "acked"),
    "not yet": (event(Postponed(account="F"), id="p-1"), "comes again"),
    "unknown": (bridged("Robbed", {"account": "G"}), "dead letter"),
    "command": (event(OpenAccount(account="C"), id="o-1"), "acked"),
}
"""What is sent, and what is to become of it."""

REASONS = {
    "poison": ("ledger.detect", "the signature on E is forged"),
    "not json": (None, "The body is not JSON"),
    "unknown": (None, "'Robbed' is no event that this service knows."),
}

APPS = pytest.mark.parametrize("module", [app, app_plain], ids=["postponed", "plain"])
"""The service with postponed annotations and without."""


def test_the_two_applications_differ_in_nothing_but_their_annotations() -> None:
    plain, postponed = (Path(str(m.__file__)).read_text().splitlines() for m in (app_plain, app))
    assert postponed[1:3] == ["", "from __future__ import annotations"]
    assert plain[1:] == postponed[3:]


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything that the ten messages have left behind."""

    fates: dict[str, Fate]
    notes: dict[str, tuple[str | None, str, int]]
    accounts: dict[str, Account | None]
    inbox: list[str | None]
    published: list[dict[str, Any]]
    left: int


async def effects_of_ten(host: EmulatedHost) -> Effects:
    for body, _ in TEN.values():
        await host.send(body)
    fates = await host.handle(10)
    letters = await host.dead_letters()
    notes = {label: note_in(letters[TEN[label][0]]) for label in REASONS}
    depth = await host.ports.queues.depth("ledger")
    return Effects(
        fates={label: fates[body] for label, (body, _) in TEN.items()},
        notes={k: (note["handler"], note["reason"], note["attempts"]) for k, note in notes.items()},
        accounts=await host.entities(Account, *"ABCDEFG"),
        inbox=await host.statuses(
            ("credit", "d-1"), ("credit", "d-2"), ("credit", "d-3"), ("open_account", "o-1")
        ),
        published=await host.published(),
        left=depth.visible + depth.in_flight,
    )


def ids_in(published: list[dict[str, Any]]) -> set[str]:
    return {detail["metadata"]["id"] for detail in published}


@APPS
async def test_the_same_ten_messages_meet_the_same_fates_on_both_hosts(
    module: ModuleType, ministack_url: str
) -> None:
    async with on_lambda(module, ministack_url) as function:
        by_lambda = await effects_of_ten(function)
    async with on_worker(module, ministack_url) as worker:
        by_worker = await effects_of_ten(worker)

    for effects in (by_lambda, by_worker):
        assert effects.fates == {label: fate for label, (_, fate) in TEN.items()}
        assert effects.accounts == {
            "A": Account(number="A", balance=5, movements=1),
            "B": Account(number="B", balance=10, movements=2),
            "C": Account(number="C"),
            **dict.fromkeys("DEFG"),
        }
        assert effects.inbox == ["done"] * 4
        assert effects.left == 2
        for label, (handler, reason) in REASONS.items():
            assert effects.notes[label][0] == handler
            assert effects.notes[label][1].startswith(reason)
            assert effects.notes[label][2] == 1
        # One id for each of the three deposits; a duplicate may have sent its own twice.
        assert {detail["data"]["account"] for detail in effects.published} == {"A", "B"}
        assert len(ids_in(effects.published)) == 3
    assert by_lambda.notes == by_worker.notes
    assert ids_in(by_lambda.published) == ids_in(by_worker.published)


async def test_lambda_reports_what_is_not_done_when_its_time_is_up(ministack_url: str) -> None:
    stalled = event(Stalled(account="S"), id="s-1")
    async with on_lambda(app, ministack_url) as host:
        await host.send(deposited("d-0", "warm"))
        await host.handle(1)
        await host.send(deposited("d-1", "A"))
        await host.send(stalled)
        batch = await collected(host.ports, "ledger", 2)

        reported = await host.invoke(batch, timeout=timedelta(seconds=2))

        assert [d.body for d in batch if d.message_id in reported] == [stalled]
        assert await host.entities(Account, "A", "S") == {
            "A": Account(number="A", balance=5, movements=1),
            "S": None,
        }
        # It can be received again at once.
        (again,) = await collected(host.ports, "ledger", 1)
        assert (again.body, again.receive_count) == (stalled, 2)


async def test_one_environment_handles_one_batch_after_another(ministack_url: str) -> None:
    async with on_lambda(app, ministack_url) as host:
        for number in range(3):
            await host.send(deposited(f"d-{number}", "A"))
            assert await host.handle(1) == {deposited(f"d-{number}", "A"): "acked"}
        accounts = await host.entities(Account, "A")
        assert accounts["A"] == Account(number="A", balance=15, movements=3)


async def test_a_lambda_handler_takes_one_event_by_direct_invocation(ministack_url: str) -> None:
    async with on_lambda(app, ministack_url) as host:
        assert await host.function.invoke(json.loads(deposited("d-1", "A"))) is None
        accounts = await host.entities(Account, "A")
        assert accounts["A"] == Account(number="A", balance=5, movements=1)


@pytest.mark.parametrize(
    "event",
    [
        json.loads(bridged("Robbed", {"account": "G"})),
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "good morning"}}]},
        {},
        None,
        "good morning",
    ],
    ids=["unknown", "from SNS", "empty", "null", "words"],
)
def test_a_direct_invocation_that_is_not_handled_is_an_error(event: Any) -> None:
    host = OnLambda(app.ledger, cloud_for(app.ledger, app.auditor))
    with pytest.raises(NotHandled, match="ledger did not handle the event: "):
        host.call(event)
