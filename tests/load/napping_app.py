"""What the worker's process of `tests.load.stops` loads. The environment names the service, and its
journal."""

from __future__ import annotations

import os
from pathlib import Path

from tests.load.journal import Journal
from tests.load.napping import napping

service = napping(os.environ["LOAD_SERVICE"], Journal(Path(os.environ["LOAD_JOURNAL"])))
