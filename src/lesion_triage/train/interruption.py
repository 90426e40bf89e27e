"""Graceful stop: SIGINT and SIGTERM are noted and acted on after the current step. Standard library only."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and has written its state.

    Attributes:
        status: exit status of the program: 128 plus the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class InterruptionHandler:
    """While entered, the first SIGINT or SIGTERM is noted; a second SIGINT interrupts at once.

    Only the main thread can handle signals; in any other thread nothing is noted.
    """

    def __init__(self) -> None:
        self.received_signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received_signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received_signal = number


def ignore_group_signals(worker: int) -> None:
    """For loader processes: ignore signals to the whole group, which the parent handles; they end with it.

    SIGTERM from the parent ends them. It comes when the parent ends by an exception whose traceback still
    holds them; a process that ignored it would be waited for without end. A parent that is killed ends them
    too: until then they would hold its locks, which they inherit, and torch looks only every five seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS, where they inherit nothing
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, 0.5)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)  # any other status would count as a failure of the loader
