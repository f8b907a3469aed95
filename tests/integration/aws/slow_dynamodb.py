"""A DynamoDB of nothing but tables, which takes its time to make an index, as AWS does.

The emulators answer ACTIVE at once. Here the table is UPDATING and the index CREATING until
they have been looked at some times, and who changes a table meanwhile is refused.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

LOOKS = 2
"""How often a new index is not yet there."""


class NotNow(Exception):
    """Another index of the table is being made."""


@dataclass(slots=True)
class SlowDynamoDb:
    """One table. `calls` are the operations, in order."""

    table: dict[str, Any] | None = None
    looks_left: int = 0
    calls: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        asked = json.loads(await request.read())
        self.calls.append(operation)
        try:
            return _json(self._answers(operation, asked))
        except NotNow:
            return _json({"__type": "x#ResourceInUseException", "message": "in use"}, 400)
        except KeyError:
            return _json({"__type": "x#ResourceNotFoundException", "message": "none"}, 400)

    def _answers(self, operation: str, asked: Mapping[str, Any]) -> Any:
        match operation:
            case "CreateTable":
                self._create(asked)
                return {"TableDescription": self.table}
            case "DescribeTable":
                return {"Table": self._look()}
            case "UpdateTable":
                self._update(asked)
                return {"TableDescription": self.table}
            case "DescribeTimeToLive":
                enabled = {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
                return {"TimeToLiveDescription": enabled}
            case _:
                raise AssertionError(operation)

    def _create(self, asked: Mapping[str, Any]) -> None:
        indexes = [
            {**index, "IndexStatus": "ACTIVE"} for index in asked.get("GlobalSecondaryIndexes", ())
        ]
        self.table = {**asked, "TableStatus": "ACTIVE", "GlobalSecondaryIndexes": indexes}

    def _look(self) -> dict[str, Any]:
        if self.table is None:
            raise KeyError
        self.looks_left -= 1
        if self.looks_left == 0:
            self.table["TableStatus"] = "ACTIVE"
            for index in self.table["GlobalSecondaryIndexes"]:
                index["IndexStatus"] = "ACTIVE"
        return self.table

    def _update(self, asked: Mapping[str, Any]) -> None:
        if self.table is None:
            raise KeyError
        if self.table["TableStatus"] != "ACTIVE":
            raise NotNow
        (change,) = asked["GlobalSecondaryIndexUpdates"]
        self.table["TableStatus"] = "UPDATING"
        self.table["AttributeDefinitions"] += asked["AttributeDefinitions"]
        index = {**change["Create"], "IndexStatus": "CREATING"}
        self.table["GlobalSecondaryIndexes"].append(index)
        self.looks_left = LOOKS


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(body), status=status, content_type="application/x-amz-json-1.0"
    )


@asynccontextmanager
async def serving(database: SlowDynamoDb) -> AsyncIterator[str]:
    """Its address, on a free port."""
    app = web.Application()
    app.router.add_post("/", database.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
