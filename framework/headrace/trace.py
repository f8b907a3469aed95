"""Trace context: W3C `traceparent` and X-Ray's `AWSTraceHeader`, and from one to the other.

Events carry the W3C form in their metadata, because an archive replay or a hop outside
AWS loses the header; SQS and EventBridge carry X-Ray's form beside the body.
"""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_ROOT = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24})", re.IGNORECASE)
_PARENT = re.compile(r"Parent=([0-9a-f]{16})", re.IGNORECASE)


def is_traceparent(value: str) -> bool:
    return _TRACEPARENT.match(value) is not None


def traceparent_from_xray(header: str | None) -> str | None:
    """`Root=1-8hex-24hex;Parent=16hex;Sampled=1` as a `traceparent`; `None` without a parent."""
    if not header:
        return None
    root, parent = _ROOT.search(header), _PARENT.search(header)
    if root is None or parent is None:
        return None
    flags = "01" if "Sampled=1" in header else "00"
    return f"00-{root[1]}{root[2]}-{parent[1]}-{flags}".lower()


def xray_from_traceparent(traceparent: str | None) -> str | None:
    """A `traceparent` as X-Ray's header; `None` for anything else."""
    match = _TRACEPARENT.match(traceparent or "")
    if match is None:
        return None
    trace, parent, flags = match.groups()
    sampled = int(flags, 16) & 1
    return f"Root=1-{trace[:8]}-{trace[8:]};Parent={parent};Sampled={sampled}"
