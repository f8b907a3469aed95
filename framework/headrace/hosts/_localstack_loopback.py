"""Start LocalStack in host mode, on the loopback interface only.

Run as a script, by a Python that has `localstack-core[runtime]` and not necessarily headrace.
LocalStack 2026.3 takes the port from GATEWAY_LISTEN, but binds every interface whatever host
stands there; the endpoint it makes is therefore given the host here.
"""

from __future__ import annotations

import importlib
import os
import runpy
from functools import partial
from typing import Any


def main() -> None:
    endpoints: Any = importlib.import_module("twisted.internet.endpoints")
    host = os.environ["GATEWAY_LISTEN"].partition(":")[0]
    endpoints.TCP4ServerEndpoint = partial(endpoints.TCP4ServerEndpoint, interface=host)
    runpy.run_module("localstack.runtime.main", run_name="__main__")


if __name__ == "__main__":
    main()
