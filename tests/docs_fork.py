"""Runs many commands of ours with one import of PyTorch: a process that has imported it forks for each.

``python docs_fork.py serve SOCKET`` waits; ``python docs_fork.py SOCKET PROGRAM WORDS...`` asks it, and is to
its caller what the program would be: same input and output, folder, environment, signals, exit status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

_LIBRARIES = (
    "timm",
    "torchvision",
    "lightning_fabric",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "sklearn.metrics",
    "scipy.stats",
    "matplotlib.figure",
    "pyarrow.parquet",
    "uvicorn",
    "fastapi",
    "lesion_triage.data.augment",
    "lesion_triage.pipeline",
    "lesion_triage.cli",
    "triage_server.cli",
)


def serve(address: str) -> None:
    """Wait for commands until killed."""
    for name in _LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the process of a finished command
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_handle_connection(connection))
            connection.close()


def _handle_connection(connection: socket.socket) -> int:
    """Run one command in a process of its own, and tell its number and then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    data = b""
    while len(data) < int(size):
        data += connection.recv(65536)
    worker = os.fork()
    if worker == 0:
        connection.close()
        os._exit(_run_command(json.loads(data), streams))
    connection.sendall(f"{worker}\n".encode())
    _, wait_status = os.waitpid(worker, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(wait_status)}\n".encode())
    return 0


def _run_command(command: dict, streams: list[int]) -> int:
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    os.setsid()
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = command["words"]
    status = 1
    try:
        if sys.argv[0].endswith("/lesion-triage"):
            from lesion_triage.cli import main
        else:
            from triage_server.cli import main
        status = main(sys.argv[1:])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def request_command(address: str, words: list[str]) -> int:
    """Have one command run; a signal to stop goes on to it."""
    command = {"folder": str(Path.cwd()), "environment": dict(os.environ), "words": words}
    data = json.dumps(command).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [f"{len(data):8}".encode()], [0, 1, 2])
        connection.sendall(data)
        with connection.makefile() as replies:
            worker = int(replies.readline())
            signal.signal(signal.SIGTERM, lambda number, _: os.kill(worker, number))
            status = int(replies.readline() or 1)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(request_command(sys.argv[1], sys.argv[2:]))
