"""What a call is refused with."""

from __future__ import annotations

from typing import Any


class Fault(Exception):
    """An error of AWS: its code, its sentence, and what else stands in the answer."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.more = more

    def as_json(self) -> dict[str, Any]:
        return {"__type": f"com.amazonaws#{self.code}", "message": str(self), **self.more}
