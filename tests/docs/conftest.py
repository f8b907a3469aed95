"""What pages import is forgotten after them; what must not be is imported before them."""

from __future__ import annotations

# It opens a socket as it is imported, and Python warns of one that is dropped open.
import aws_xray_sdk.core  # type: ignore[import-untyped]  # noqa: F401  # ships no types
