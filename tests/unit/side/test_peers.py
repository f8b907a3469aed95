"""The contenders with a worker of their own, each where its environment was made: `make bench`
makes .venv/bench-<peer>."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.side import protocol, work
from benchmarks.side.contenders import peer, plain_effect
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job
from benchmarks.side.server.process import instant_server

ROOT: Final = Path(__file__).parents[3]
MESSAGES: Final = 40

PEERS: Final = {
    "celery_sqs": "celery",
    "taskiq_sqs": "taskiq",
    "dramatiq_sqs_": "dramatiq",
    "asyncfast_": "asyncfast",
}
CLIENT: Final = {
    "AWS_DEFAULT_REGION": work.REGION,
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def server() -> Iterator[str]:
    with instant_server() as endpoint:
        yield endpoint


def interpreter(contender: str) -> Path:
    python = ROOT / ".venv" / f"bench-{PEERS[contender]}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{contender} is not installed: `make bench-quick` makes its environment.")
    return python


def run(contender: str, job: Job) -> str:
    """What it writes to its standard output."""
    command = [str(interpreter(contender)), "-m", f"benchmarks.side.contenders.{contender}"]
    environment = {**os.environ, **CLIENT, "AWS_ENDPOINT_URL": job.endpoint}
    environment[protocol.VARIABLE] = job.as_json()
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return ended.stdout


def filled(contender: str, endpoint: str) -> None:
    """The server, as that contender's worker is to find it."""
    interpreter(contender)
    hold = contender != "asyncfast_"
    protocol.reset(endpoint, messages=MESSAGES, hold=hold)
    if hold:
        assert run(contender, Job("fill", endpoint, MESSAGES)) == ""


@pytest.mark.emulator
@pytest.mark.parametrize("contender", PEERS)
def test_a_peer_gives_every_message_one_effect_and_one_event(contender: str, server: str) -> None:
    filled(contender, server)

    *_, line = run(contender, Job("plain", server, MESSAGES)).splitlines()

    counts = protocol.counts(server)
    reached = {name: counts[name] for name in ("effects", "events", "deleted")}
    assert reached == dict.fromkeys(reached, MESSAGES)
    assert counts["doubled"] == dict.fromkeys(reached, 0)
    assert json.loads(line)["contender"] == contender


@pytest.mark.emulator
@pytest.mark.parametrize("contender", PEERS)
def test_a_peer_publishes_every_message_once(contender: str, server: str) -> None:
    interpreter(contender)
    protocol.reset(server, messages=0, hold=True)

    run(contender, Job("publish", server, MESSAGES))

    assert protocol.counts(server)["sent"] == MESSAGES


def test_a_peer_is_called_with_what_comes_from_eventbridge() -> None:
    job = Job("fill", "http://127.0.0.1:1", messages=20, poison=0.1, seed=7)

    for number in range(job.messages):
        detail = json.loads(work.body(number, seed=7, poison=0.1))["detail"]
        called = peer.arguments(job, number)
        assert called == {"metadata": detail["metadata"], "order": detail["data"]}


def test_the_plain_effect_is_that_of_the_work() -> None:
    job, order = Job("plain", "http://127.0.0.1:1", 1), OrderPlaced.model_validate(work.order(3))

    item = plain_effect.item_request(job, order)
    (entry,) = plain_effect.event_request(job, "an-event", order)["Entries"]

    total = work.total(work.order(3)["lines"])
    effect = work.effect(work.order_id(3), order.customer.email, total)
    assert item == {"TableName": job.table, "Item": work.wire_item(effect)}
    assert json.loads(entry.pop("Detail")) == work.accepted("an-event", work.order_id(3), total)
    assert entry == {
        "Source": work.OUT_SOURCE,
        "DetailType": work.OUT_DETAIL_TYPE,
        "EventBusName": job.bus,
    }


def test_an_event_that_is_not_taken_is_an_error() -> None:
    refused: dict[str, Any] = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "Throttled"}]}

    with pytest.raises(RuntimeError, match="Throttled"):
        plain_effect.must_be_taken(refused)
