"""``triage-server`` and ``python -m triage_server``: starts the command line quickly."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from types import FrameType

_STDERR = 2


def main() -> int:
    """Entry point of ``triage-server``.

    The garbage collector is off during imports, and what they leave behind is frozen, since none of it is
    garbage. That saves a tenth of the start, and every later collection skips those objects.

    Returns:
        As ``triage_server.cli.main``.
    """
    is_subcommand = bool(sys.argv[1:]) and not sys.argv[1].startswith("-")  # a server has options only
    interruptible = is_subcommand and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _break_off)
    elif not is_subcommand:
        _protect_what_it_holds()
        # SIGHUP would kill a server until it has a bundle to look at again; most of that time is imports.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    gc.disable()
    from triage_server import cli  # noqa: PLC0415 - see above

    gc.freeze()
    gc.enable()
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there may be files to tidy up
    return cli.main()


def _protect_what_it_holds() -> None:
    """Leave no photographs in a core dump, and give no file of ours the number of a closed standard stream.

    A library that prints a warning would write it into the audit log.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    while (unused := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(unused)


def _leave(number: int, frame: FrameType | None) -> None:
    """Stop at once: a server that does not serve yet has nothing to finish.

    Not an exception: code that is being imported may swallow it.
    """
    os._exit(0)


def _break_off(number: int, frame: FrameType | None) -> None:
    """Stop at once: a subcommand that has not begun has nothing to finish either."""
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
