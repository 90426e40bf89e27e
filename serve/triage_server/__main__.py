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
    errand = bool(sys.argv[1:]) and not sys.argv[1].startswith("-")  # begins with a word; a server does not
    interruptible = errand and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _break_off)
    elif not errand:
        # Until it has something to look again at, a SIGHUP would kill a server, and most of the way to there
        # is imports.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    gc.disable()
    from triage_server import cli  # noqa: PLC0415 - see above

    gc.freeze()
    gc.enable()
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from now on there may be files to tidy up
    return cli.main()


def _leave(number: int, frame: FrameType | None) -> None:
    """Told to stop before it serves, a server has nothing to finish.

    At once: what is raised here an import may swallow.
    """
    os._exit(0)


def _break_off(number: int, frame: FrameType | None) -> None:
    """Nor has an errand that has not begun."""
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
