"""What a service on Lambda weighs, and when its first batch is done: `python -m benchmarks.bundle`.

Sizes are those of the bundle that is deployed, for arm64. For the cold start, a bundle for this
machine is unpacked, and Lambda's own runtime client runs it in a fresh process that sees nothing
else, on an emulator in a process of its own: from the start of the process to the answer to its
first batch of ten. Services take turns, and the first round is not counted. Beside it stand the
time of a second batch, and the processor time of the whole process, which a busy machine changes
less. The last line has the largest sizes, and the median over the services of their median cold
starts.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import files
from pathlib import Path
from shutil import copyfile
from statistics import median
from typing import Any, Final
from zipfile import ZipFile

from headrace import Service
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.cdk.bundle import CACHE, Bundle, bundle
from headrace.cdk.runtimes import here
from headrace.entity import key_of, to_item
from headrace.envelope import queue_body, root_metadata, seal
from headrace.events import Message
from headrace.hosts.emulator import ACCOUNT, REGION, endpoints_environment, ministack
from headrace.ports import Put
from headrace.testing.runtime_api import lambda_runtime, sqs_event
from headrace.topology.derive import topology
from schemas.inventory import ReserveStock
from schemas.order import Customer, OrderConfirmed, OrderLine, PlaceOrder
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.notification.app import notification
from services.order.app import order

BATCH: Final = 10
_IMPORTS: Final = 5
_CUSTOMER: Final = Customer(name="Freja Holm", email="freja.holm@example.com")
_RUNTIME_CLIENT: Final = ("awslambdaric", "simplejson", "snapshot-restore-py")
"""What Lambda's Python has beside a bundle."""


# --- the services, and a batch for each ----------------------------------------------------------


def _lines(number: int) -> tuple[OrderLine, ...]:
    """Of a SKU that no other message of a batch has."""
    return (OrderLine(sku=f"SKU-{number % BATCH}", quantity=1, unit_price=Decimal("5.90")),)


def _place(number: int) -> PlaceOrder:
    return PlaceOrder(order_id=f"C{number}", customer=_CUSTOMER, lines=_lines(number))


def _reserve(number: int) -> ReserveStock:
    return ReserveStock(order_id=f"C{number}", lines=_lines(number))


def _confirmed(number: int) -> OrderConfirmed:
    lines = _lines(number)
    return OrderConfirmed(
        order_id=f"C{number}",
        customer=_CUSTOMER,
        lines=lines,
        total=lines[0].unit_price,
        currency="EUR",
    )


SERVICES: Final[Mapping[Service, Callable[[int], Message]]] = {
    order: _place,
    inventory: _reserve,
    notification: _confirmed,
}


def _entry_point(service: Service) -> str:
    return f"services.{service.name}.lambda_handler"


def _batch(service: Service, number: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    bodies = []
    for each in range(number * BATCH, (number + 1) * BATCH):
        message = SERVICES[service](each)
        metadata = root_metadata(message, id=f"{service.name}-{each}", now=now)
        bodies.append(queue_body(seal(message, metadata)))
    return sqs_event(f"arn:aws:sqs:{REGION}:{ACCOUNT}:{service.name}", *bodies)


@asynccontextmanager
async def _shop() -> AsyncIterator[dict[str, str]]:
    """An emulator with everything the services need; yields what leads to it."""
    async with ministack() as endpoint:
        environment = endpoints_environment(endpoint)
        config = AwsConfig.from_environment(environment)
        await provision(topology(*SERVICES), config)
        async with open_ports(config) as ports:
            for number in range(BATCH):
                stock = Stock(sku=f"SKU-{number}", available=1_000_000)
                key = key_of(stock, inventory.name)
                await ports.store.write([Put(inventory.name, to_item(stock, key, 1))])
        yield environment


# --- this machine as Lambda ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lambda:
    """An interpreter without packages, and Lambda's runtime client, compiled, in a folder."""

    python: Path
    client: Path

    @classmethod
    def made(cls, folder: Path) -> Lambda:
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        client = folder / "client"
        for package in _RUNTIME_CLIENT:
            for file in files(package) or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    copy = client / file
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copyfile(Path(str(file.locate())), copy)
        made = cls(folder / "venv/bin/python", client)
        subprocess.run([made.python, "-m", "compileall", "-q", client], check=True)
        return made

    def environment(self, unpacked: Path) -> dict[str, str]:
        """Its file system cannot be written to, so no bytecode is kept."""
        return {"PYTHONPATH": f"{unpacked}:{self.client}", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one service; times are in milliseconds, one for each process."""

    bundle: Bundle
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    imports: list[Mapping[str, float]] = field(default_factory=list)

    @property
    def importing(self) -> float:
        return median(sum(of.values()) for of in self.imports)

    def share(self, whose: str) -> float:
        return median(of.get(whose, 0.0) for of in self.imports)


async def measured(rounds: int, cache: Path) -> dict[Service, Measured]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        machine = Lambda.made(folder)
        found = {service: Measured(_deployed(service, folder, cache)) for service in SERVICES}
        unpacked = {service: _unpacked(service, folder, cache) for service in SERVICES}
        async with _shop() as shop:
            for number in range(rounds + 1):
                for service, figures in found.items():
                    environment = {
                        **shop,
                        **machine.environment(unpacked[service]),
                        "MAIL_DIR": str(folder / "mail"),
                    }
                    before = _cpu()
                    cold, warm = await _first_two(service, number, machine, environment)
                    if number:
                        figures.cold.append(cold)
                        figures.warm.append(warm)
                        figures.cpu.append(_cpu() - before)
        for service, figures in found.items():
            for _ in range(_IMPORTS):
                figures.imports.append(_imports(service, machine, unpacked[service]))
    return found


def _deployed(service: Service, folder: Path, cache: Path) -> Bundle:
    return bundle([_entry_point(service)], folder / f"{service.name}.zip", cache=cache)


def _unpacked(service: Service, folder: Path, cache: Path) -> Path:
    made = bundle(
        [_entry_point(service)],
        folder / f"{service.name}-here.zip",
        python=here(),
        machine="here",
        cache=cache,
    )
    with ZipFile(made.path) as archive:
        archive.extractall(folder / service.name)
    return folder / service.name


async def _first_two(
    service: Service, number: int, machine: Lambda, environment: Mapping[str, str]
) -> tuple[float, float]:
    """Milliseconds to the answer to the first batch, and then of the next, in one process."""
    times = []
    handler = f"{_entry_point(service)}.handler"
    async with lambda_runtime(
        handler, environment=environment, python=machine.python, name=service.name
    ) as function:
        for each in (2 * number, 2 * number + 1):
            event = _batch(service, each)
            began = time.perf_counter()
            answer = await function.invoke(event)
            times.append((time.perf_counter() - began) * 1000)
            if answer != {"batchItemFailures": []}:
                raise SystemExit(
                    f"{service.name} did not handle its batch: {answer}\n{function.printed()}"
                )
    return times[0], times[1]


def _cpu() -> float:
    """Milliseconds that processes have used which this one started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


# --- imports -------------------------------------------------------------------------------------

_WHOSE: Final = {
    "headrace": "headrace",
    "services": "service",
    "schemas": "service",
    "aiobotocore": "botocore",
    "botocore": "botocore",
    "aiohttp": "aiohttp",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic",
}
_COLUMNS: Final = ("headrace", "service", "pydantic", "botocore", "aiohttp", "other")


def _imports(service: Service, machine: Lambda, unpacked: Path) -> dict[str, float]:
    """Milliseconds that a module's own code takes while an entry point is imported, by whose it
    is. Tracing makes all of it somewhat slower."""
    done = subprocess.run(
        [machine.python, "-X", "importtime", "-c", f"import {_entry_point(service)}"],
        env=machine.environment(unpacked),
        capture_output=True,
        text=True,
        check=True,
    )
    found: defaultdict[str, float] = defaultdict(float)
    for name, microseconds in _lines_of(done.stderr):
        found[_WHOSE.get(name.partition(".")[0], "other")] += microseconds / 1000
    return dict(found)


def _lines_of(said: str) -> Iterator[tuple[str, int]]:
    for line in said.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            yield rest.partition("|")[2].strip(), int(own)


# --- the table -----------------------------------------------------------------------------------


def _table(found: Mapping[Service, Measured]) -> Iterator[str]:
    head = f"{'':<14}{'zipped':>9}{'unzipped':>10}{'files':>7}"
    yield f"{head}{'cold start':>24}{'next':>8}{'CPU':>9}"
    for service, of in found.items():
        spread = f"{median(of.cold):.0f} ms ({min(of.cold):.0f}-{max(of.cold):.0f})"
        yield (
            f"{service.name:<14}{of.bundle.zipped_bytes / 1e6:>6.1f} MB"
            f"{of.bundle.unzipped_bytes / 1e6:>7.1f} MB{of.bundle.files:>7}{spread:>24}"
            f"{median(of.warm):>5.0f} ms{median(of.cpu):>6.0f} ms"
        )
    yield ""
    columns = "".join(f"{name:>10}" for name in _COLUMNS)
    yield f"{'imports, ms':<14}{'all':>9}{columns}"
    for service, of in found.items():
        shares = "".join(f"{of.share(name):>10.0f}" for name in _COLUMNS)
        yield f"{service.name:<14}{of.importing:>9.0f}{shares}"


def _last_line(found: Sequence[Measured]) -> str:
    zipped = max(of.bundle.zipped_bytes for of in found) / 1e6
    unzipped = max(of.bundle.unzipped_bytes for of in found) / 1e6
    cold = median(median(of.cold) for of in found)
    return f"zipped_mb={zipped:.1f} unzipped_mb={unzipped:.1f} cold_start_ms={cold:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundle", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="processes for each service")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where packages are kept")
    options = parser.parse_args()
    found = asyncio.run(measured(options.rounds, options.cache))
    sys.stdout.write("\n".join([*_table(found), _last_line(list(found.values()))]) + "\n")


if __name__ == "__main__":
    main()
