"""A snapshot is taken after INIT, and any number of environments go on from it: each is its own.

Here a process imports a function, is forked twice, and each child handles one invocation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="only a fork is like a snapshot")

ROOT: Final = Path(__file__).parents[3]

INIT: Final = """
import json, os, random, sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from headrace import Entity, Event, Service, Transaction
from headrace.aws.client import preload
from headrace.hosts.lambda_ import LambdaHandler
from headrace.ports import Ports
from headrace.system import SystemClock, SystemRandomness

class KeyTurned(Event, source="vault.door"):
    number: int

class DoorOpened(Event, source="vault.door"):
    number: int

class Door(Entity, pk="door#{number}"):
    number: int

vault = Service("vault", bus="house")
seen = {"tokens": [], "holders": [], "published": []}

@vault.on(KeyTurned)
async def open_door(event: KeyTurned, tx: Transaction) -> DoorOpened:
    tx.put(Door(number=event.number))
    return DoorOpened(number=event.number)

@vault.on(KeyTurned, lease=timedelta(minutes=1))
async def ring(event: KeyTurned, tx: Transaction) -> None:
    holders = [item["holder"]["S"] for item in cloud.store.items("vault") if "holder" in item]
    seen["holders"] += holders

@dataclass
class Recorded:
    inner: Any

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def transact(self, actions, *, token):
        seen["tokens"].append(token)
        await self.inner.transact(actions, token=token)

    async def put(self, bus, entries):
        for entry in entries:
            seen["published"].append(json.loads(entry.detail)["metadata"]["id"])
        return await self.inner.put(bus, entries)

@asynccontextmanager
async def opened(config):
    # All of AWS, and none of the chance, is in memory.
    global cloud
    from headrace.testing import memory_ports
    from headrace.topology.derive import topology
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(vault))
    randomness = SystemRandomness()
    seen["jitter"] = [randomness.uniform(0, 1) for _ in range(3)]
    yield Ports(
        cloud.queues, Recorded(cloud.bus), Recorded(cloud.store), cloud.scheduler, cloud.clock,
        randomness,
    )

handler = LambdaHandler(vault, ports=opened)
preload()
"""

RESTORED_TWICE: Final = """
class Context:
    aws_request_id = "3f6f0c86-7a3c-4a0b-9a2e-6c0f9d0b7c11"
    def get_remaining_time_in_millis(self):
        return 60_000

def invoke():
    from botocore.retries.standard import ExponentialBackoff, RetryContext
    body = {"id": "e-1", "detail-type": "KeyTurned", "detail": {"metadata": {
        "id": "e-1", "type": "KeyTurned", "version": 1, "time": "2026-11-21T12:00:00Z",
        "correlation_id": "e-1"}, "data": {"number": 7}}}
    record = {"messageId": "m-1", "receiptHandle": "r-1", "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {},
        "eventSource": "aws:sqs", "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:vault"}
    answer = handler({"Records": [record]}, Context())
    assert answer == {"batchItemFailures": []}, answer
    items = cloud.store.items("vault")
    seen["commit_ids"] = sorted(i["commit_id"]["S"] for i in items if "commit_id" in i)
    backoff = ExponentialBackoff()
    seen["botocore"] = [
        backoff.delay_amount(RetryContext(attempt_number=n)) for n in (1, 2, 3)
    ]
    return seen

# A fork seeds the module's generator anew, and the restore of a snapshot does not.
state = random.getstate()
children = []
for _ in range(2):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        random.setstate(state)
        code = 1
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(invoke(), pipe)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    children.append(json.loads(said))
print(json.dumps(children))
"""

OPEN_AFTER_INIT: Final = """
import gc, json, os, sys, threading
import asyncio, aiohttp, socket

def open_files():
    return sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{n}"))

before, threads = open_files(), threading.active_count()
import services.inventory.lambda_handler
from headrace.aws.client import Clients
gc.collect()
kinds = (asyncio.AbstractEventLoop, asyncio.Runner, asyncio.Future, aiohttp.ClientSession,
         aiohttp.BaseConnector, socket.socket, Clients)
print(json.dumps({
    "files": [file for file in open_files() if file not in before],
    "threads": threading.active_count() - threads,
    "objects": [repr(o) for o in gc.get_objects() if isinstance(o, kinds)],
}))
"""


def printed_by(program: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@cache
def environments() -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    one, other = printed_by(INIT + RESTORED_TWICE)
    return one, other


@pytest.mark.parametrize("what", ["commit_ids", "tokens", "holders", "jitter"])
def test_two_environments_of_one_snapshot_draw_nothing_alike(what: str) -> None:
    one, other = environments()
    assert one[what]
    assert other[what]
    assert not set(one[what]) & set(other[what])


def test_what_follows_from_the_event_is_the_same_in_both() -> None:
    one, other = environments()
    assert len(one["published"]) == 1
    assert one["published"] == other["published"]


def test_retries_of_the_aws_client_do_not_fall_together() -> None:
    # botocore draws them from the module's generator, whose state is part of the snapshot.
    one, other = environments()
    assert one["botocore"] != other["botocore"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists open files so")
def test_nothing_is_open_and_nothing_runs_when_the_snapshot_is_taken() -> None:
    assert printed_by(OPEN_AFTER_INIT) == {"files": [], "threads": 0, "objects": []}
