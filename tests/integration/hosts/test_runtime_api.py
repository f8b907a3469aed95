"""The Runtime API of `headrace.testing` against the client that Lambda's runtimes use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.errors import Refused
from headrace.ports import Attribute, Delivery
from headrace.testing.runtime_api import (
    PAYLOAD_BYTES,
    FunctionError,
    lambda_runtime,
    sqs_event,
)

ARN = "arn:aws:sqs:us-east-1:000000000000:orders"
HERE = "tests.integration.hosts.functions"


def is_running(process: int) -> bool:
    """Whether there is a process of this id, other than one that nobody has waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_function_is_invoked_and_its_answer_comes_back() -> None:
    async with lambda_runtime(f"{HERE}.echo", name="orders") as function:
        answer = await function.invoke({"sku": "A-1 ü"}, timeout=timedelta(seconds=20))

    assert answer["event"] == {"sku": "A-1 ü"}
    assert answer["arn"] == function.arn == "arn:aws:lambda:us-east-1:000000000000:function:orders"
    assert 0 < answer["milliseconds"] <= 20_000


async def test_one_environment_takes_all_invocations_in_turn_and_ends_with_the_block() -> None:
    async with lambda_runtime(f"{HERE}.echo") as function:
        answers = await asyncio.gather(*(function.invoke(number) for number in range(5)))
        (process,) = {answer["process"] for answer in answers}
        assert is_running(process)

    assert [answer["event"] for answer in answers] == list(range(5))
    assert len({answer["request_id"] for answer in answers}) == 5
    assert not is_running(process)


async def test_an_event_of_some_megabytes_passes_and_one_that_lambda_refuses_does_not() -> None:
    async with lambda_runtime(f"{HERE}.echo") as function:
        answer = await function.invoke("x" * 5_000_000)
        assert len(answer["event"]) == 5_000_000
        with pytest.raises(Refused, match="Invoke with a smaller batch"):
            await function.invoke("x" * PAYLOAD_BYTES)


async def test_what_a_function_raises_is_raised_with_its_type_message_and_frames() -> None:
    async with lambda_runtime(f"{HERE}.fail") as function:
        with pytest.raises(FunctionError, match="LookupError: there is no 'A-1'") as raised:
            await function.invoke("A-1")

    assert raised.value.error_type == "LookupError"
    assert raised.value.error_message == "there is no 'A-1'"
    assert "in fail" in "".join(raised.value.stack_trace)


async def test_an_answer_that_is_not_json_is_an_error_of_the_function() -> None:
    async with lambda_runtime(f"{HERE}.unprintable") as function:
        with pytest.raises(FunctionError, match=r"Runtime\.MarshalError"):
            await function.invoke({})


async def test_a_module_that_cannot_be_imported_is_an_error_of_the_function() -> None:
    async with lambda_runtime("tests.integration.hosts.missing.handler") as function:
        with pytest.raises(FunctionError) as raised:
            await function.invoke({})

    assert raised.value.error_type == "Runtime.ImportModuleError"


async def test_a_handler_that_is_not_there_is_an_error_at_each_invocation() -> None:
    async with lambda_runtime(f"{HERE}.missing") as function:
        for _ in range(2):
            with pytest.raises(FunctionError, match=r"Runtime\.HandlerNotFound"):
                await function.invoke({})


async def test_a_process_that_ends_is_reported_and_replaced() -> None:
    async with lambda_runtime(f"{HERE}.leave") as function:
        before = await function.invoke("stay")
        with pytest.raises(FunctionError, match=r"Runtime\.ExitError: .* status 3"):
            await function.invoke("leave")
        after = await function.invoke("stay")

    assert after["process"] != before["process"]


async def test_a_function_is_killed_at_its_timeout_and_replaced() -> None:
    async with lambda_runtime(f"{HERE}.leave") as function:
        before = await function.invoke("stay")
        with pytest.raises(FunctionError, match=r"Sandbox\.Timedout: .* after 0\.20 seconds"):
            await function.invoke("hang", timeout=timedelta(seconds=0.2))
        assert not is_running(before["process"])
        after = await function.invoke("stay")

    assert after["process"] != before["process"]


async def test_an_interpreter_without_the_runtime_client_shows_what_it_printed(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho No module named awslambdaric >&2\nexit 1\n")
    broken.chmod(0o755)

    async with lambda_runtime(f"{HERE}.echo", python=broken) as function:
        with pytest.raises(FunctionError, match=r"status 1 .*\n  No module named awslambdaric"):
            await function.invoke({})


async def test_what_a_function_prints_can_be_read() -> None:
    async with lambda_runtime(f"{HERE}.echo") as function:
        assert function.printed() == ""
        await function.invoke("A-1")
        assert function.printed() == "asked for 'A-1'\n"


async def test_the_configuration_of_a_function_is_in_its_environment(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(
        "import os\ndef handler(event, context):\n    return os.environ['GREETING']\n"
    )
    environment = {"GREETING": "ahoy", "PYTHONPATH": str(tmp_path)}
    async with lambda_runtime("greeting.handler", environment=environment) as function:
        assert await function.invoke({}) == "ahoy"


# --- records ---------------------------------------------------------------------------------


def text_in(value: object) -> Iterator[object]:
    """Every leaf of a JSON value."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from text_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from text_in(inner)
    else:
        yield value


def test_a_received_message_keeps_everything_that_settling_it_needs() -> None:
    delivery = Delivery(
        message_id="m-1",
        receipt_handle="r-1",
        body="{}",
        queue="orders",
        receive_count=3,
        group_id="tenant",
        sent_at=datetime(2026, 11, 21, 12, tzinfo=UTC),
        trace_header="Root=1-5759e988-bd862e3fe1be46a994272793",
        attributes={"note": Attribute("n"), "raw": Attribute(b"\x00", "Binary.png")},
    )
    (record,) = sqs_event(ARN, delivery)["Records"]

    assert record["messageId"] == "m-1"
    assert record["receiptHandle"] == "r-1"
    assert record["eventSourceARN"] == ARN
    assert record["awsRegion"] == "us-east-1"
    assert record["attributes"]["ApproximateReceiveCount"] == "3"
    assert record["attributes"]["SentTimestamp"] == "1795262400000"
    assert record["attributes"]["MessageGroupId"] == "tenant"
    assert record["attributes"]["AWSTraceHeader"] == delivery.trace_header
    assert record["messageAttributes"]["note"]["stringValue"] == "n"
    assert record["messageAttributes"]["raw"]["binaryValue"] == "AA=="
    assert all(isinstance(leaf, str) for leaf in text_in(record))


def test_a_body_alone_makes_a_record_with_ids_of_its_own() -> None:
    first, second = sqs_event(ARN, "one", "two")["Records"]

    assert (first["body"], second["body"]) == ("one", "two")
    assert first["messageId"] != second["messageId"]
    assert first["md5OfBody"] == "f97c5d29941bfb1b2fdab0874906ab82"
    assert "MessageGroupId" not in first["attributes"]
