"""Where an emulator is known to differ from AWS, by name.

A test of such a behaviour says `@deviates("name")`. On that emulator it is then expected to
fail, strictly: once the emulator behaves, the test says so and the row has to go.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from headrace.errors import Refused

# An emulator that does not answer shows no deviation: that is an error like any other.
_SHOWN_BY = (AssertionError, ValueError, Refused, pytest.fail.Exception)


class Deviation(NamedTuple):
    """One difference of one backend. `name` is what tests refer to."""

    backend: str
    name: str
    sentence: str


DEVIATIONS = (
    Deviation(
        "ministack",
        "stale-receipt-is-an-error",
        "A delete by a receipt handle of an earlier receive fails; AWS answers success.",
    ),
    Deviation(
        "ministack",
        "deleting-twice-is-an-error",
        "A second delete by one receipt handle fails; AWS answers success.",
    ),
    Deviation(
        "ministack",
        "accepts-visibility-over-12-hours",
        "A visibility beyond twelve hours is taken; AWS fails the entry.",
    ),
    Deviation(
        "localstack",
        "accepts-visibility-over-12-hours",
        "A visibility beyond twelve hours is taken; AWS fails the entry.",
    ),
    Deviation(
        "ministack",
        "entries-without-a-group-fail-alone",
        "In a batch for a FIFO queue an entry without a group fails alone; AWS refuses the batch.",
    ),
    Deviation(
        "localstack",
        "earlier-receipts-delete-from-fifo-queues",
        "A delete from a FIFO queue by the receipt handle of an earlier receive succeeds.",
    ),
    Deviation(
        "localstack",
        "sender-faults-not-marked",
        "Failed entries of a batch have SenderFault false, so they look worth another try.",
    ),
    Deviation(
        "ministack",
        "trace-header-lost-in-batches",
        "AWSTraceHeader is dropped by SendMessageBatch, though not by SendMessage.",
    ),
    Deviation(
        "ministack",
        "trace-header-of-events-lost",
        "The TraceHeader of PutEvents does not reach a queue as AWSTraceHeader.",
    ),
    Deviation(
        "localstack",
        "trace-header-of-events-lost",
        "The TraceHeader of PutEvents does not reach a queue as AWSTraceHeader.",
    ),
    Deviation(
        "ministack",
        "time-of-put-events-ignored",
        "An event has the time of the call, whatever the Time of its entry.",
    ),
    Deviation(
        "ministack",
        "accepts-malformed-detail",
        "A Detail that is no JSON object is taken; AWS fails the entry with MalformedDetail.",
    ),
    Deviation(
        "ministack",
        "accepts-a-missing-detail-type",
        "An entry without DetailType is taken; AWS fails it with InvalidArgument.",
    ),
    Deviation(
        "ministack",
        "accepts-a-missing-source",
        "An entry without Source is taken; AWS fails it with InvalidArgument.",
    ),
    Deviation(
        "ministack",
        "accepts-an-empty-put",
        "PutEvents without entries is answered with success; AWS refuses the call.",
    ),
    Deviation(
        "localstack",
        "accepts-an-empty-put",
        "PutEvents without entries is answered with success; AWS refuses the call.",
    ),
    Deviation(
        "ministack",
        "accepts-events-over-one-megabyte",
        "The total size of the entries of PutEvents is not checked.",
    ),
    Deviation(
        "ministack",
        "accepts-long-trace-headers",
        "A TraceHeader of over 500 characters is taken; AWS refuses the call.",
    ),
    Deviation(
        "localstack",
        "accepts-long-trace-headers",
        "A TraceHeader of over 500 characters is taken; AWS refuses the call.",
    ),
    Deviation(
        "localstack",
        "incomplete-calls-fail-by-entry",
        "PutEvents without one complete entry fails by entry; AWS documents that it is refused.",
    ),
    Deviation(
        "localstack",
        "events-end-at-256-kib",
        "A detail of 256 KiB is refused; AWS takes entries of a megabyte in total.",
    ),
    Deviation(
        "localstack",
        "true-equals-one",
        "In a pattern, true takes the number 1.",
    ),
    Deviation(
        "localstack",
        "invalid-patterns-accepted",
        "PutRule takes a pattern whose values are no lists; AWS refuses it.",
    ),
    Deviation(
        "localstack",
        "schedules-never-fire",
        "A schedule is kept and can be cancelled, but nothing is ever sent.",
    ),
    Deviation(
        "ministack",
        "absent-equals-absent",
        "Two attributes that are not there are equal; on AWS they are not.",
    ),
    Deviation(
        "ministack",
        "numbers-in-sets-compared-as-text",
        "In a set of numbers, 2.5 and 2.50 are two.",
    ),
    Deviation(
        "dynoxide",
        "numbers-in-sets-compared-as-text",
        "DELETE does not find 2.50 in a set that holds 2.5.",
    ),
    Deviation(
        "ministack",
        "wrong-type-in-begins-with-is-an-error",
        "begins_with of a number attribute is a validation error; on AWS it is false.",
    ),
    Deviation(
        "ministack",
        "operand-types-of-conditions-not-checked",
        "Values that cannot go with their operator make a condition false, not invalid.",
    ),
    Deviation(
        "dynoxide",
        "operand-types-of-conditions-not-checked",
        "Values that cannot go with their operator make a condition false, not invalid.",
    ),
    Deviation(
        "ministack",
        "unknown-functions-and-operators-accepted",
        "!= is taken, and an unknown function makes a condition false.",
    ),
    Deviation(
        "dynoxide",
        "unknown-functions-and-operators-accepted",
        "Names of functions are taken in any case.",
    ),
    Deviation(
        "ministack",
        "comparison-with-itself-accepted",
        "The first operand of a comparison need not be distinct from the others.",
    ),
    Deviation(
        "dynoxide",
        "comparison-with-itself-accepted",
        "The first operand of a comparison need not be distinct from the others.",
    ),
    Deviation(
        "ministack",
        "reserved-words-accepted",
        "Reserved words may stand bare in the expressions of a transaction.",
    ),
    Deviation(
        "dynoxide",
        "set-beyond-the-end-pads",
        "SET of an element beyond the end of a list fills the gap with nulls; AWS appends.",
    ),
    Deviation(
        "ministack",
        "removed-indexes-shift",
        "REMOVE of two elements takes the second index from the list without the first.",
    ),
    Deviation(
        "dynoxide",
        "removed-indexes-shift",
        "REMOVE of two elements takes the second index from the list without the first.",
    ),
    Deviation(
        "ministack",
        "update-syntax-not-checked",
        "Update expressions are read leniently: half a clause does nothing, or half of it.",
    ),
    Deviation(
        "ministack",
        "operand-types-of-updates-not-checked",
        "Arithmetic on text and list_append of a text do something; AWS refuses them.",
    ),
    Deviation(
        "ministack",
        "overlapping-paths-accepted",
        "One update may change a part of an item twice.",
    ),
    Deviation(
        "dynoxide",
        "overlapping-paths-accepted",
        "One update may change a part of an item twice.",
    ),
    Deviation(
        "ministack",
        "removals-make-an-item",
        "REMOVE or DELETE on an item that is not there makes an empty one.",
    ),
    Deviation(
        "ministack",
        "paths-into-nothing-accepted",
        "REMOVE of a part of what is not there, and SET of a part of a text, do nothing.",
    ),
    Deviation(
        "dynoxide",
        "paths-into-nothing-accepted",
        "REMOVE of a part of what is not there does nothing; AWS refuses it.",
    ),
    Deviation("ministack", "key-changes-accepted", "An update may change pk and sk."),
    Deviation(
        "dynoxide",
        "removals-make-an-item",
        "REMOVE or DELETE on an item that is not there makes an empty one.",
    ),
    Deviation("dynoxide", "key-changes-accepted", "An update may change pk and sk."),
    Deviation(
        "ministack",
        "long-index-keys-accepted",
        "The keys of an index may have any length; AWS takes 2,048 and 1,024 bytes.",
    ),
    Deviation(
        "dynoxide",
        "long-index-keys-accepted",
        "The keys of an index may have any length; AWS takes 2,048 and 1,024 bytes.",
    ),
    Deviation(
        "dynoxide",
        "starts-elsewhere-accepted",
        "A query may start at a key of another partition; AWS refuses that.",
    ),
    Deviation(
        "dynoxide",
        "empty-keys-in-queries-accepted",
        "A query for an empty key finds nothing; AWS refuses it.",
    ),
)


def deviates(*names: str) -> pytest.MarkDecorator:
    """This test shows a behaviour that some backend does not have."""
    return pytest.mark.deviates.with_args(*names)


def expected_failure(backend: str, names: tuple[str, ...]) -> pytest.MarkDecorator | None:
    """The mark for a test that shows these behaviours, on this backend."""
    unknown = set(names) - {row.name for row in DEVIATIONS}
    if unknown:
        raise pytest.UsageError(f"No row of DEVIATIONS is named {', '.join(sorted(unknown))}.")
    known = [row for row in DEVIATIONS if row.backend == backend and row.name in names]
    if not known:
        return None
    reason = "; ".join(row.name for row in known)
    return pytest.mark.xfail(reason=reason, raises=_SHOWN_BY, strict=True)
