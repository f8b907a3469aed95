"""The bad input of `cases` through an emulator's queues, on both hosts."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TypeAlias

import pytest

from headrace.dead_letter import NOTE_ATTRIBUTE
from tests.integration.hosts import app
from tests.integration.hosts.bank import Account
from tests.integration.hosts.cases import CASES, REFUSED, good
from tests.integration.hosts.emulated_hosts import EmulatedHost, note_in, on_lambda, on_worker

pytestmark = [
    pytest.mark.emulator,
    # aiohttp warns of any body over 1 MiB, which a message of 1 MiB is once it is in a request.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

OpenHost: TypeAlias = Callable[[ModuleType, str], AbstractAsyncContextManager[EmulatedHost]]


@pytest.mark.parametrize("on", [on_lambda, on_worker])
async def test_every_case_meets_its_fate_and_every_good_message_between_is_handled(
    on: OpenHost, ministack_url: str
) -> None:
    async with on(app, ministack_url) as host:
        for number, case in enumerate(CASES):
            await host.send(case.body, case.attributes)
            await host.send(good(f"number {number}"))

        fates = await host.handle(2 * len(CASES))

        assert {case.name: fates[case.body] for case in CASES} == {
            case.name: "dead letter" if case in REFUSED else "acked" for case in CASES
        }
        await assert_effects(host)
        await assert_letters(host)
        assert (await host.ports.queues.depth("ledger")).in_flight == 0


async def assert_effects(host: EmulatedHost) -> None:
    """Every message that can be handled has its account, and no other has."""
    ordinary = [f"number {number}" for number in range(len(CASES))]
    assert None not in (await host.entities(Account, *ordinary)).values()
    unusual = await host.entities(Account, *(case.account for case in CASES))
    assert {account for account, found in unusual.items() if found is None} == {
        case.account for case in REFUSED
    }


async def assert_letters(host: EmulatedHost) -> None:
    """Each dead letter is the message as it came, with its reason where there is room."""
    letters = await host.dead_letters()
    assert set(letters) == {case.body for case in REFUSED}
    for case in REFUSED:
        attributes = dict(letters[case.body].attributes)
        if case.noted:
            assert re.search(str(case.reason), note_in(letters[case.body])["reason"])
            del attributes[NOTE_ATTRIBUTE]
        assert attributes == case.attributes
