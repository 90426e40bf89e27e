"""httpx for tests that ask a server in another process: its own five seconds are too few on a slow machine.

Tests whose point is time say their own.
"""

from __future__ import annotations

from functools import partial

import httpx

PATIENCE_S = 60.0

get = partial(httpx.get, timeout=PATIENCE_S)
head = partial(httpx.head, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)
request = partial(httpx.request, timeout=PATIENCE_S)
Client = partial(httpx.Client, timeout=PATIENCE_S)
