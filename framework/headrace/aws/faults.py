"""What botocore raises, as the kinds of error the ports promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

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


class Fault(NamedTuple):
    """The kind of error a code becomes, and what its sentence says to do next."""

    kind: type[CloudError]
    advice: str


_SLOW_DOWN = Fault(Throttled, "try again later, or raise the limit")
_UNKNOWN_RESULT = Fault(Unreachable, "it may or may not have happened; try again")
_NOTHING_CHANGED = Fault(Unreachable, "nothing was changed; try again")
_CREDENTIALS = Fault(Refused, "check the credentials and the account they belong to")
_PERMISSION = Fault(Refused, "allow the action on the resource in the role's policy")
_EXPIRED = Fault(Unreachable, "try again with fresh credentials and a right clock")
_MISSING = Fault(
    NotProvisioned,
    "run `headrace provision` or deploy the stack, and check HEADRACE_NAMESPACE",
)

FAULTS: Final[Mapping[str, Fault]] = {
    # too many calls; nothing happened
    "ThrottlingException": _SLOW_DOWN,
    "Throttling": _SLOW_DOWN,
    "ThrottledException": _SLOW_DOWN,
    "TooManyRequestsException": _SLOW_DOWN,
    "RequestThrottled": _SLOW_DOWN,
    "RequestThrottledException": _SLOW_DOWN,
    "KMS.ThrottlingException": _SLOW_DOWN,
    "KmsThrottled": _SLOW_DOWN,
    "SlowDown": _SLOW_DOWN,
    "RequestLimitExceeded": _SLOW_DOWN,
    "LimitExceededException": _SLOW_DOWN,
    "ProvisionedThroughputExceededException": _SLOW_DOWN,
    "ServiceQuotaExceededException": _SLOW_DOWN,  # Scheduler's, for the rate of calls as well
    "OverLimit": Fault(Throttled, "finish messages in flight before receiving more"),
    # another writer has the item for a moment; nothing happened
    "TransactionConflictException": Fault(Throttled, "try again"),
    "ReplicatedWriteConflictException": Fault(Throttled, "try again"),
    "ConcurrentModificationException": Fault(Throttled, "try again"),
    "ConflictException": Fault(Throttled, "try again"),
    # whether it happened is not known
    "TransactionInProgressException": Fault(
        Unreachable, "an earlier call with this token has not ended; try again with the same token"
    ),
    "InternalServerError": _UNKNOWN_RESULT,
    "InternalFailure": _UNKNOWN_RESULT,
    "InternalError": _UNKNOWN_RESULT,
    "InternalException": _UNKNOWN_RESULT,
    "ServiceUnavailable": _UNKNOWN_RESULT,
    "RequestTimeout": _UNKNOWN_RESULT,
    "RequestTimeoutException": _UNKNOWN_RESULT,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    # not there
    "QueueDoesNotExist": _MISSING,
    "AWS.SimpleQueueService.NonExistentQueue": _MISSING,
    "ResourceNotFoundException": _MISSING,
    # refused for good
    "AccessDenied": _PERMISSION,
    "AccessDeniedException": _PERMISSION,
    "KMS.AccessDeniedException": _PERMISSION,
    "KmsAccessDenied": _PERMISSION,
    "UnrecognizedClientException": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "MissingAuthenticationToken": _CREDENTIALS,
    "MissingAuthenticationTokenException": _CREDENTIALS,
    "IdempotentParameterMismatchException": Fault(
        Refused, "this token was used for other actions within ten minutes; take a new one"
    ),
    "ItemCollectionSizeLimitExceededException": Fault(
        Refused, "an item collection may hold 10 GB; spread it over more partition keys"
    ),
}
"""Error codes of SQS, EventBridge, DynamoDB and Scheduler. A code that is not listed is judged by
its HTTP status: 429 is `Throttled`, 5xx is `Unreachable`, the rest is `Refused`."""

_SAID: Final[Mapping[str, Fault]] = {
    "Cannot read from backfilling": Fault(Throttled, "wait until the index is active"),
    "does not have the specified index": Fault(
        Refused, "run `headrace provision` or deploy the stack, which adds it"
    ),
}
"""What DynamoDB says of an index, in ValidationExceptions that only their words tell apart."""

_READS: Final = ("Get", "BatchGet", "TransactGet", "Query", "Scan", "List", "Describe")
"""What the operations begin with that change nothing. A receive hides what it received."""

_NOT_CONNECTED: Final = (EndpointConnectionError, ConnectTimeoutError)

_NO_ANSWER: Final = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,  # a load balancer's HTML page instead of an answer
    CredentialRetrievalError,
    MetadataRetrievalError,
    TokenRetrievalError,
)


def retryable_entry(code: str, *, sender_fault: bool) -> bool:
    """Whether one entry of a batch, refused with `code`, may be sent again as it is."""
    fault = FAULTS.get(code)
    return fault.kind.retryable if fault else not sender_fault


@contextmanager
def translated(operation: str, resource: str, place: str) -> Iterator[None]:
    """Raise what botocore raises in this block as a kind of `CloudError`.

    `resource` reads like "queue 'orders'", `place` like "us-east-1". Cancellation passes.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, operation, resource, place) from error
    except _NO_ANSWER as error:
        raise _from_silence(error, operation, resource, place) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Refused(
            f"{operation} on the {resource} in {place} cannot be signed: {_clause(error)}. "
            "Give AWS credentials, or name an emulator with AWS_ENDPOINT_URL.",
            operation=operation,
            code=type(error).__name__,
        ) from error
    except BotoCoreError as error:
        raise Refused(
            f"{operation} on the {resource} in {place} was never sent: {_clause(error)}.",
            operation=operation,
            code=type(error).__name__,
        ) from error


def codes(error: ClientError) -> tuple[str, ...]:
    """The error's codes, the modelled one first.

    SQS answers with two: its own and the one its former Query protocol had, and botocore
    puts the latter into `Code`.
    """
    details: Mapping[str, Any] = error.response.get("Error", {})
    named = (details.get("QueryErrorCode"), details.get("Code"))
    return tuple(str(code).rpartition("#")[2] for code in named if code)


def _from_answer(error: ClientError, operation: str, resource: str, place: str) -> CloudError:
    named = codes(error)
    if "TransactionCanceledException" in named:
        return TransactionCanceled(_reasons(error.response), operation=operation)
    if "ConditionalCheckFailedException" in named:
        return _condition_failed(error.response, operation, resource, place)
    fault = next((FAULTS[code] for code in named if code in FAULTS), None) or _unlisted(error)
    if fault is _UNKNOWN_RESULT and operation.startswith(_READS):
        fault = _NOTHING_CHANGED
    code = named[0] if named else ""
    if fault.kind is NotProvisioned:
        sentence = f"The {resource} does not exist in {place}: {fault.advice}."
    else:
        said = str(error.response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
        sentence = (
            f"{operation} on the {resource} in {place} failed with {code}: {said}. "
            f"{fault.advice[0].upper()}{fault.advice[1:]}."
        )
    return fault.kind(sentence, operation=operation, code=code)


def _condition_failed(
    response: Mapping[str, Any], operation: str, resource: str, place: str
) -> ConditionFailed:
    return ConditionFailed(
        f"{operation} on the {resource} in {place} wrote nothing: the item is not as the "
        "condition wants it. Read it again before trying again.",
        operation=operation,
        item=response.get("Item") or None,
    )


def _unlisted(error: ClientError) -> Fault:
    said = str(error.response.get("Error", {}).get("Message"))
    return next((fault for words, fault in _SAID.items() if words in said), _by_status(error))


def _by_status(error: ClientError) -> Fault:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    if status == 429:
        return _SLOW_DOWN
    return _UNKNOWN_RESULT if status >= 500 else Fault(Refused, "change what is asked for")


def _from_silence(error: Exception, operation: str, resource: str, place: str) -> Unreachable:
    return Unreachable(
        f"{operation} on the {resource} in {place} got no usable answer: {_clause(error)}. "
        f"{_effect(error, operation)} {_way_out(error)}",
        operation=operation,
        code=type(error).__name__,
    )


def _effect(error: Exception, operation: str) -> str:
    """What is known of the effect of a call that was not answered."""
    if operation.startswith(_READS):
        return "Nothing was changed."
    if isinstance(error, _NOT_CONNECTED):
        # Of the tries before it, which botocore tells nothing of, one may have come through.
        return "Nothing was sent by its last try."
    return "It may or may not have happened."


def _way_out(error: Exception) -> str:
    if isinstance(error, EndpointConnectionError) and _is_on_this_machine(error):
        return "Is the emulator running? If not, start it, or correct AWS_ENDPOINT_URL."
    return "Check the network and AWS_ENDPOINT_URL."


def _is_on_this_machine(error: EndpointConnectionError) -> bool:
    host = urlsplit(str(error.kwargs.get("endpoint_url"))).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _reasons(response: Mapping[str, Any]) -> list[CancellationReason | None]:
    return [
        None
        if reason.get("Code", "None") == "None"
        else CancellationReason(reason["Code"], reason.get("Message") or "", reason.get("Item"))
        for reason in response.get("CancellationReasons", ())
    ]


def _clause(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
