"""A shop per test, with a mail folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.services.shop import Shop, open_shop


@pytest.fixture
def mail_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MAIL_URL", raising=False)
    monkeypatch.delenv("PAYMENTS_DIR", raising=False)
    monkeypatch.setenv("MAIL_DIR", str(tmp_path / "mail"))
    return tmp_path / "mail"


@pytest.fixture
async def shop(mail_folder: Path) -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop
