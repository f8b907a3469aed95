"""A Lambda function on AWS in memory that says what it does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace import Event, PoisonMessage, Service
from headrace.aws.config import AwsConfig
from headrace.hosts.lambda_ import LambdaHandler
from headrace.ports import Ports
from headrace.system import SystemClock
from headrace.testing.memory import memory_ports
from headrace.topology.derive import topology

logger = logging.getLogger(__name__)
logger.info("nobody listens yet")


class ParcelWeighed(Event, source="shop.lambdalogs"):
    parcel: str
    grams: int


scales = Service("scales", bus="shop")


@scales.on(ParcelWeighed)
def weigh(event: ParcelWeighed) -> None:
    logger.info("%s has\n%d g", event.parcel, event.grams)
    if event.grams < 0:
        raise PoisonMessage(f"{event.parcel} floats")


@asynccontextmanager
async def in_memory(config: AwsConfig) -> AsyncIterator[Ports]:
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(scales))
    yield cloud.ports


handler = LambdaHandler(scales, ports=in_memory)
