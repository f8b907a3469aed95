"""One thing that is not as the code wants it, and the words in which it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from headrace.aws.config import AwsConfig

from .check import Severity

MISSING: Final = "missing"
"""The aspect of what is not there at all."""

BY_HAND: Final = (
    "somebody changed it by hand: change it back (to deploy the same template again does nothing)."
)
GONE: Final = (
    "somebody deleted it: make it again by hand (to deploy the same template again does nothing)."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the code wants it. `aspect` names what of the subject it is, and is
    empty where the sentence says itself what to do."""

    severity: Severity
    subject: str
    aspect: str
    sentence: str


def error(subject: str, aspect: str, sentence: str) -> Difference:
    return Difference(Severity.ERROR, subject, aspect, sentence)


def warning(subject: str, aspect: str, sentence: str) -> Difference:
    return Difference(Severity.WARNING, subject, aspect, sentence)


def called(name: str, names: AwsConfig) -> str:
    return name if name.startswith("arn:") else names.physical(name)


def seconds(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    return f"{days:g} days" if days and days.is_integer() else f"{duration.total_seconds():g} s"


def spelled(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
