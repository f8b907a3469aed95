"""`make redrive`, for some seconds; and what the emulator can and cannot do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.aws.dead_letters import open_moves
from headrace.dlq.groups import heads
from headrace.dlq.holding import holding
from headrace.dlq.moving import move_all
from headrace.dlq.reading import Reader
from headrace.ports import QueueEntry
from headrace.topology.model import dead_letter_queue
from tests.load.common import emulated, fill
from tests.load.redrive import redriven
from tests.load.redrive_app import clerks

pytestmark = pytest.mark.emulator

DEAD_LETTERS = dead_letter_queue(clerks.name)


@pytest.mark.slow
async def test_a_redrive_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(
    ministack_url: str,
) -> None:
    outcome = await redriven(60, 3, visibility=1, url=ministack_url)

    assert outcome.findings == []
    assert outcome.line() == "letters=60 groups=4 kills=3 lost=0 repeated=0 failed=0"


async def test_letters_are_hidden_and_given_back_on_the_emulator(ministack_url: str) -> None:
    async with emulated(clerks, url=ministack_url) as on:
        await fill(on.ports.queues, DEAD_LETTERS, [QueueEntry(f"[{n}]") for n in range(25)])

        async with holding(on.ports.queues, DEAD_LETTERS, visibility=timedelta(seconds=20)) as held:
            deliveries = await held.fill()
            hidden = (await on.ports.queues.depth(DEAD_LETTERS)).in_flight
            letters = await Reader(clerks, clerks.name, on.ports).read(deliveries)

        assert (len(letters), hidden) == (25, 25)
        assert len(heads(letters)) == 1
        assert (await on.ports.queues.depth(DEAD_LETTERS)).visible == 25


async def test_an_emulator_that_cannot_move_messages_says_so(ministack_url: str) -> None:
    async with emulated(clerks, url=ministack_url) as on, open_moves(on.config) as moves:
        assert await move_all(moves, DEAD_LETTERS, clerks.name) is None
