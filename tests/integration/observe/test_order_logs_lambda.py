"""Logs and metrics of a function, as the runtime of Lambda writes them."""

from __future__ import annotations

import json
from typing import Any

from headrace.testing import delivery_of
from headrace.testing.runtime_api import lambda_runtime, sqs_event
from tests.integration.observe.logged_function import ParcelWeighed
from tests.unit.observe.emf_schema import problems
from tests.unit.observe.test_emf import values_of

ARN = "arn:aws:sqs:us-east-1:000000000000:scales"
FUNCTION = "tests.integration.observe.logged_function.handler"
ON = {"HEADRACE_LOGS": "json", "HEADRACE_METRICS": "emf"}


def event(*grams: int) -> dict[str, Any]:
    parcels = [ParcelWeighed(parcel=f"P{number}", grams=number) for number in grams]
    return sqs_event(ARN, *(delivery_of(p, "scales", id=f"e-{p.parcel}") for p in parcels))


async def test_lambda_writes_the_lines_of_each_message_and_the_metrics_of_each_invocation() -> None:
    async with lambda_runtime(FUNCTION, environment=ON) as function:
        for grams in [(1, 2), (3, -4)]:
            assert await function.invoke(event(*grams)) == {"batchItemFailures": []}
        printed = function.printed().splitlines()

    documents = [json.loads(line) for line in printed]
    logs = [line for line in documents if "_aws" not in line]
    said = {line["correlation_id"]: line for line in logs if line["message"].endswith(" g")}
    assert {id: line["message"] for id, line in said.items()} == {
        f"e-P{number}": f"P{number} has\n{number} g" for number in (1, 2, 3, -4)
    }
    first, second = ({said[id]["aws_request_id"] for id in ids} for ids in _BATCHES)
    assert (len(first), len(second), first & second) == (1, 1, set())
    (buried,) = [line for line in logs if line.get("outcome") == "dead_letter"]
    assert (buried["correlation_id"], buried["handler"]) == ("e-P-4", "weigh")

    metrics = [line for line in printed if "_aws" in json.loads(line)]
    assert [problem for line in metrics for problem in problems(f"{line}\n")] == []
    values = values_of(map(json.loads, metrics))["scales",]
    assert (values["Received"], values["Handled"], values["DeadLettered"]) == ([2, 2], [2, 1], [1])


_BATCHES = (("e-P1", "e-P2"), ("e-P3", "e-P-4"))
