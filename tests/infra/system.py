"""A system with one of everything: the sample shop, and a service with a FIFO queue."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from headrace import Command, Entity, Event, Service, Transaction
from headrace.cdk.deployment import Deployment


class EntryMade(Event, source="ledger.entries"):
    account: str
    cents: int


class EntryChecked(Command, owner="ledger"):
    account: str


class LedgerAccount(Entity, pk="ledger-account#{name}"):
    name: str
    cents: int = 0


ledger: Final = Service("ledger", bus="bank")


@ledger.on(EntryMade, queue="entries.fifo", park=True)
async def enter(event: EntryMade, tx: Transaction) -> None:
    tx.put(LedgerAccount(name=event.account, cents=event.cents))


@ledger.on(EntryChecked, idempotent=True)
async def look(command: EntryChecked) -> None:
    """Nothing: it is there to have a queue that no rule leads to."""


ROOT: Final = Path(__file__).parents[2]
NAMESPACE: Final = "shop-test"

FILE: Final = f"""
system = "shop"
namespace = "{NAMESPACE}"
alarms_to = "oncall@example.com"
sources = "{ROOT}"

[services.order]
app = "services.order.app:order"
host = "lambda"
http = "services.order.http:app"

[services.inventory]
app = "services.inventory.app:inventory"
host = "both"

[services.notification]
app = "services.notification.app:notification"
host = "fargate"
http = "services.order.http:app"
fargate = {{ least = 0 }}

[services.ledger]
app = "tests.infra.system:ledger"
host = "fargate"
fargate = {{ least = 3 }}
"""


def deployment(folder: Path) -> Deployment:
    file = folder / "deploy.toml"
    file.write_text(FILE)
    return Deployment.read(file)
