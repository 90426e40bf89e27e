"""``triage-server`` and ``python -m triage_server``: the command line, imported quickly."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Entry point of ``triage-server``.

    What imports leave behind is no garbage. Not looking for any among it takes a tenth off the start, and
    spares every later collection the way through it.

    Returns:
        As ``triage_server.cli.main``.
    """
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        # A server, and no errand, which begins with a word. Until it has something to look again at, a SIGHUP
        # would kill it, and most of the way to there is imports.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    gc.disable()
    from triage_server import cli  # noqa: PLC0415 - see above

    gc.freeze()
    gc.enable()
    return cli.main()


def _leave(number: int, frame: FrameType | None) -> None:
    """Told to stop before it serves, a server has nothing to finish.

    At once: what is raised here an import may swallow.
    """
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
