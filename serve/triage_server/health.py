"""``python -m triage_server.health``: ask the server in this container whether it is ready.

For supervisors that can only run a command. Reads the server's settings from the environment. Imports nothing
of ours, to start quickly: it may run twice a minute.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping

_TIMEOUT_S = 4.0


def ready(environment: Mapping[str, str]) -> bool:
    """Whether ``/health/ready`` answers 200, asked over loopback."""
    host = environment.get("TRIAGE_HOST", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not listened on
    try:
        port = int(environment.get("TRIAGE_PORT", "8080"))
    except ValueError:
        return False  # and the server refuses to start
    connection: http.client.HTTPConnection
    if environment.get("TRIAGE_TLS_CERT"):
        # Only the path is sent, and the certificate is for the name on the network, not for loopback.
        connection = http.client.HTTPSConnection(
            host,
            port,
            timeout=_TIMEOUT_S,
            context=ssl._create_unverified_context(),  # noqa: S323
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, OverflowError, http.client.HTTPException):  # OverflowError: no such port
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if ready(os.environ) else 1)
