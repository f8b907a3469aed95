"""What the order service needs from outside, chosen by the environment.

PAYMENTS_DIR   the folder in which the local gateway keeps its payments, for all processes of the
               service; without it, they are kept in the memory of each
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.order.local_gateway import FolderBook, LocalGateway, MemoryBook
from services.order.payments import Gateway


@asynccontextmanager
async def open_gateway() -> AsyncIterator[Gateway]:
    """The gateway that the environment asks for."""
    folder = os.environ.get("PAYMENTS_DIR")
    yield LocalGateway(FolderBook(Path(folder)) if folder else MemoryBook())
