"""Where an emulator is known to differ from AWS, by name.

A test of such a behaviour says `@deviates("name")`. On that emulator it is then expected to
fail, strictly: once the emulator behaves, the test says so and the row has to go.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest


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
        "ministack",
        "accepts-events-over-one-megabyte",
        "The total size of the entries of PutEvents is not checked.",
    ),
    Deviation(
        "ministack",
        "accepts-long-trace-headers",
        "A TraceHeader of over 500 characters is taken; AWS refuses the call.",
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
    return pytest.mark.xfail(reason="; ".join(row.name for row in known), strict=True)
