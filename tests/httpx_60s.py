"""httpx with a longer timeout, for tests of a server process: the default of 5 s is short on a slow machine.

Tests of timing set their own.
"""

from __future__ import annotations

from functools import partial

import httpx

TIMEOUT_S = 60.0

get = partial(httpx.get, timeout=TIMEOUT_S)
head = partial(httpx.head, timeout=TIMEOUT_S)
post = partial(httpx.post, timeout=TIMEOUT_S)
request = partial(httpx.request, timeout=TIMEOUT_S)
Client = partial(httpx.Client, timeout=TIMEOUT_S)
