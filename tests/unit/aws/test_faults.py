"""What botocore raises becomes the error the ports promise."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from headrace.aws.faults import FAULTS, retryable_entry, translated
from headrace.errors import (
    CancellationReason,
    CloudError,
    ConditionFailed,
    NotProvisioned,
    Refused,
    Throttled,
    TransactionCanceled,
    Unreachable,
)


def client_error(
    code: str,
    *,
    message: str = "said AWS",
    status: int = 400,
    reasons: Sequence[Mapping[str, Any]] = (),
    item: Mapping[str, Any] | None = None,
    **codes: str,
) -> ClientError:
    error = {"Code": code, "Message": message, **codes}
    answer: Any = {
        "Error": error,
        "ResponseMetadata": {"HTTPStatusCode": status},
        "CancellationReasons": reasons,
        **({"Item": item} if item is not None else {}),
    }
    return ClientError(answer, "PutEvents")


def translate(error: BaseException, operation: str = "PutEvents") -> CloudError:
    with pytest.raises(CloudError) as caught, translated(operation, "bus 'shop'", "eu-west-1"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ThrottlingException", Throttled),
        ("ProvisionedThroughputExceededException", Throttled),
        ("RequestLimitExceeded", Throttled),
        ("RequestThrottled", Throttled),
        ("OverLimit", Throttled),
        ("TransactionConflictException", Throttled),
        ("ConflictException", Throttled),
        ("ServiceQuotaExceededException", Throttled),
        ("TransactionInProgressException", Unreachable),
        ("InternalServerError", Unreachable),
        ("InternalFailure", Unreachable),
        ("ServiceUnavailable", Unreachable),
        ("ExpiredTokenException", Unreachable),
        ("QueueDoesNotExist", NotProvisioned),
        ("ResourceNotFoundException", NotProvisioned),
        ("AccessDeniedException", Refused),
        ("UnrecognizedClientException", Refused),
        ("IdempotentParameterMismatchException", Refused),
        ("ValidationException", Refused),
        ("InvalidMessageContents", Refused),
    ],
)
def test_an_error_code_becomes_its_kind(code: str, kind: type[CloudError]) -> None:
    error = translate(client_error(code))

    assert type(error) is kind
    assert (error.code, error.operation) == (code, "PutEvents")


@pytest.mark.parametrize(
    ("status", "kind"), [(503, Unreachable), (500, Unreachable), (429, Throttled), (413, Refused)]
)
def test_a_code_nobody_listed_is_judged_by_its_http_status(
    status: int, kind: type[CloudError]
) -> None:
    assert type(translate(client_error("SomethingNew", status=status))) is kind


def test_a_table_entry_never_names_the_error_root() -> None:
    kinds = {fault.kind for fault in FAULTS.values()}

    assert kinds == {Throttled, Unreachable, NotProvisioned, Refused}


def test_the_modelled_code_of_sqs_goes_before_that_of_its_former_protocol() -> None:
    error = translate(
        client_error("AWS.SimpleQueueService.NonExistentQueue", QueryErrorCode="QueueDoesNotExist")
    )

    assert isinstance(error, NotProvisioned)
    assert error.code == "QueueDoesNotExist"


def test_a_missing_resource_says_what_to_run_and_what_to_check() -> None:
    error = translate(client_error("ResourceNotFoundException"))

    assert str(error) == (
        "The bus 'shop' does not exist in eu-west-1: run `headrace provision` or deploy the "
        "stack, and check HEADRACE_NAMESPACE."
    )


def test_a_refusal_quotes_aws_and_names_operation_and_resource() -> None:
    error = translate(client_error("AccessDeniedException", message="not for you."))

    assert str(error) == (
        "PutEvents on the bus 'shop' in eu-west-1 failed with AccessDeniedException: "
        "not for you. Allow the action on the resource in the role's policy."
    )


@pytest.mark.parametrize(
    "silence",
    [
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ConnectTimeoutError(endpoint_url="http://127.0.0.1:1"),
        ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
        ConnectionClosedError(endpoint_url="http://127.0.0.1:1"),
    ],
)
def test_a_call_without_an_answer_may_or_may_not_have_happened(silence: BotoCoreError) -> None:
    error = translate(silence)

    assert isinstance(error, Unreachable)
    assert error.retryable
    assert error.code == type(silence).__name__


REFUSED = EndpointConnectionError(endpoint_url="http://127.0.0.1:4566/")
MAY_HAVE = "may or may not have happened"


@pytest.mark.parametrize(
    ("silence", "operation", "said"),
    [
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), "PutEvents", MAY_HAVE),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), "ReceiveMessage", MAY_HAVE),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), "Query", "Nothing was changed."),
        (client_error("InternalServerError", status=500), "PutEvents", MAY_HAVE),
        (client_error("InternalServerError", status=500), "BatchGetItem", "Nothing was changed;"),
        (client_error("NobodyListedThis", status=503), "GetQueueUrl", "Nothing was changed;"),
        (REFUSED, "GetQueueUrl", "Nothing was changed."),
        (REFUSED, "PutEvents", "Nothing was sent by its last try."),
    ],
)
def test_only_of_a_write_that_was_sent_it_is_not_known_whether_it_happened(
    silence: Exception, operation: str, said: str
) -> None:
    error = translate(silence, operation)

    assert isinstance(error, Unreachable)
    assert said.lower() in str(error).lower()
    assert (MAY_HAVE in str(error).lower()) is (said == MAY_HAVE)


@pytest.mark.parametrize(
    ("url", "asks"),
    [
        ("http://127.0.0.1:4566/", True),
        ("http://localhost:4566", True),
        ("http://[::1]:4566", True),
        ("https://sqs.eu-west-1.amazonaws.com", False),
        ("http://emulator.internal:4566", False),
    ],
)
def test_where_this_machine_refuses_a_connection_the_emulator_is_asked_for(
    url: str, asks: bool
) -> None:
    error = translate(EndpointConnectionError(endpoint_url=url), "GetQueueUrl")

    assert ("Is the emulator running?" in str(error)) is asks
    assert "AWS_ENDPOINT_URL" in str(error)


def test_missing_credentials_are_refused_with_a_way_out() -> None:
    error = translate(NoCredentialsError())

    assert isinstance(error, Refused)
    assert "Give AWS credentials, or name an emulator with AWS_ENDPOINT_URL" in str(error)


def test_a_call_that_botocore_would_not_send_is_refused() -> None:
    assert isinstance(translate(ParamValidationError(report="no such field")), Refused)


def test_a_cancelled_transaction_has_one_reason_for_each_action() -> None:
    item = {"pk": {"S": "stock#1"}, "sk": {"S": "-"}}
    error = translate(
        client_error(
            "TransactionCanceledException",
            reasons=[
                {"Code": "None"},
                {"Code": "ConditionalCheckFailed", "Message": "it stands", "Item": item},
                {"Code": "TransactionConflict", "Message": None},
            ],
        ),
        "TransactWriteItems",
    )

    assert isinstance(error, TransactionCanceled)
    assert error.reasons == (
        None,
        CancellationReason("ConditionalCheckFailed", "it stands", item),
        CancellationReason("TransactionConflict"),
    )
    assert error.operation == "TransactWriteItems"


@pytest.mark.parametrize("item", [{"pk": {"S": "stock#1"}, "sk": {"S": "-"}}, None])
def test_a_failed_condition_has_the_item_that_stood_in_the_way(item: dict[str, Any] | None) -> None:
    error = translate(client_error("ConditionalCheckFailedException", item=item), "PutItem")

    assert isinstance(error, ConditionFailed)
    assert error.item == item
    assert (error.operation, error.retryable) == ("PutItem", False)
    assert "Read it again before trying again" in str(error)


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("The table does not have the specified index: due", Refused, "Run `headrace provision`"),
        ("Cannot read from backfilling global secondary index: due", Throttled, "Wait until"),
        ("Consistent reads are not supported", Refused, "Change what is asked for"),
    ],
)
def test_what_is_wrong_with_an_index_is_known_by_its_words(
    said: str, kind: type[CloudError], advice: str
) -> None:
    error = translate(client_error("ValidationException", message=said), "Query")

    assert type(error) is kind
    assert advice in str(error)


def test_cancellation_passes_untouched() -> None:
    with pytest.raises(asyncio.CancelledError), translated("PutEvents", "bus 'shop'", "eu-west-1"):
        raise asyncio.CancelledError


def test_an_error_of_the_program_passes_untouched() -> None:
    with pytest.raises(KeyError), translated("PutEvents", "bus 'shop'", "eu-west-1"):
        raise KeyError("Entries")


@pytest.mark.parametrize(
    ("code", "sender_fault", "retryable"),
    [
        ("InternalFailure", True, True),
        ("ThrottlingException", True, True),
        ("InternalError", False, True),
        ("SomethingNew", False, True),
        ("SomethingNew", True, False),
        ("MalformedDetail", True, False),
        ("AccessDeniedException", False, False),
    ],
)
def test_an_entry_may_be_sent_again_unless_it_would_be_refused_again(
    code: str, sender_fault: bool, retryable: bool
) -> None:
    assert retryable_entry(code, sender_fault=sender_fault) is retryable
