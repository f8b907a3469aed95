"""How the samples of `benchmarks.side.profile` are shared out."""

from __future__ import annotations

import time
from collections import Counter

from benchmarks.side.profile import (
    OURS,
    OWNERS,
    SHARES,
    Blame,
    Found,
    Place,
    Sampler,
    blamed,
    last_line,
    table,
)

LOOP = (
    Place("asyncio.events", "Handle._run"),
    Place("asyncio.base_events", "BaseEventLoop._run_once"),
    Place("__main__", "main"),
)


def test_what_the_standard_library_does_is_its_callers() -> None:
    stack = [
        Place("dataclasses", "replace"),
        Place("headrace.inbox", "Inbox.mark_done"),
        Place("headrace.pipeline", "Pipeline._take_effect"),
        *LOOP,
    ]
    assert blamed(stack) == Blame("commit", "headrace.inbox:Inbox.mark_done", "dataclasses:replace")


def test_what_a_call_of_botocore_does_is_not_headraces() -> None:
    request = [Place("aiobotocore.client", "AioBaseClient._make_api_call")]
    below = [*request, Place("headrace.aws.dynamodb", "DynamoDbStore.transact"), *LOOP]
    assert blamed(below).share == "botocore"
    assert blamed([Place("botocore.auth", "SigV4Auth.add_auth"), *below]).share == "sign"
    assert blamed([Place("aiohttp.client", "ClientSession._request"), *below]).share == "http"


def test_one_function_of_a_module_may_have_a_share_of_its_own() -> None:
    pipeline = Place("headrace.pipeline", "Pipeline.consume")
    sealing = Place("headrace.pipeline", "Pipeline._seal.<locals>.<listcomp>")
    assert blamed([pipeline, *LOOP]).share == "handler"
    assert blamed([sealing, pipeline, *LOOP]).share == "commit"


def test_what_several_parts_use_is_its_callers_and_other_without_one() -> None:
    posting = Place("headrace.coalesce", "Coalescer.post")
    carrying = Place("headrace.coalesce", "Coalescer._carry")
    assert blamed([posting, Place("headrace.settle", "_Orders.give"), *LOOP]).share == "settle"
    assert blamed([carrying, *LOOP]) == Blame("other", str(carrying))


def test_the_loop_has_what_nobody_has_called() -> None:
    assert blamed(LOOP) == Blame("loop", "asyncio.events:Handle._run")


def test_every_owner_has_a_share_that_is_printed() -> None:
    assert set(OWNERS.values()) == set(SHARES) - {"loop", "other"}
    assert set(OURS) <= set(SHARES)


def test_the_shares_of_the_last_line_add_up() -> None:
    found = _found({"decode": 1, "handler": 1, "commit": 1, "loop": 4})
    shares = dict(part.removesuffix("%").split("=") for part in last_line(found).split())
    assert list(shares) == list(SHARES)
    assert sum(round(float(share) * 10) for share in shares.values()) == 1000
    assert shares["loop"] in ("57.1", "57.2")


def test_the_table_says_microseconds_and_names_what_is_headraces_own() -> None:
    found = _found({"decode": 25, "botocore": 75})
    lines = list(table(found))
    assert "200 us of CPU, from 100 samples" in lines[0]
    assert any(line.split()[:3] == ["decode", "50.0", "25.0"] for line in lines)
    assert [line for line in lines if line.endswith("the place of decode")]
    assert not [line for line in lines if line.endswith("the place of botocore")]


def test_a_sample_has_the_function_that_was_running() -> None:
    sampler = Sampler(0.001)
    sampler.start()
    try:
        _busy(lambda: not sampler.taken)
    finally:
        sampler.stop()
    places = {place for stack in sampler.stacks() for place in stack}
    assert Place(__name__, "_busy") in places


def _busy(wanted: object) -> None:
    assert callable(wanted)
    until = time.process_time() + 30
    while wanted():
        assert time.process_time() < until, "no sample was taken"


def _found(samples: dict[str, int]) -> Found:
    blames = {Blame(share, f"the place of {share}"): count for share, count in samples.items()}
    return Found(Counter(blames), microseconds=[150.0, 250.0], collecting=[0.0, 0.0])
