"""Signature Version 4 for AWS's JSON protocols, and nothing else of an SDK.

The steps are those of the IAM user guide, "Create a signed AWS API request": the key of a day,
region and service is derived once, and a request then costs two SHA-256 and one HMAC.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import digest
from typing import NamedTuple


class Service(NamedTuple):
    """How a service of AWS is called: its name in signatures, the prefix of `X-Amz-Target`, and the
    version of its JSON protocol."""

    name: str
    target: str
    protocol: str


class _Scope(NamedTuple):
    text: str
    key: bytes


@dataclass(slots=True)
class Signer:
    """Signs for one set of credentials in one region."""

    access_key: str
    secret_key: str
    region: str
    token: str | None = None
    _scopes: dict[tuple[str, str], _Scope] = field(default_factory=dict)

    def headers(
        self, service: Service, host: str, operation: str, body: bytes, *, now: float
    ) -> dict[str, str]:
        """The headers of `POST /` with this body, at `now` in epoch seconds."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {
            "content-type": f"application/x-amz-json-{service.protocol}",
            "host": host,
            "x-amz-date": moment,
            "x-amz-target": f"{service.target}.{operation}",
        }
        if self.token is not None:
            headers["x-amz-security-token"] = self.token
        headers["authorization"] = self._authorization(service.name, moment, headers, body)
        return headers

    def _authorization(
        self, service: str, moment: str, headers: dict[str, str], body: bytes
    ) -> str:
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        request = f"POST\n/\n\n{lines}\n{signed}\n{sha256(body).hexdigest()}"
        scope = self._scope(service, moment[:8])
        hashed = sha256(request.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope.text}\n{hashed}"
        signature = digest(scope.key, to_sign.encode(), "sha256").hex()
        return (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope.text}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def _scope(self, service: str, day: str) -> _Scope:
        known = self._scopes.get((service, day))
        if known is None:
            known = self._scopes[service, day] = self._derived(service, day)
        return known

    def _derived(self, service: str, day: str) -> _Scope:
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, service, "aws4_request"):
            key = digest(key, part.encode(), "sha256")
        return _Scope(f"{day}/{self.region}/{service}/aws4_request", key)
