"""Runs the commands of a page in order, in one shell, and says which did not do what the page says.

Imports the reader of blocks and the comparison of output.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import docs_fork
from docs_blocks import Block, Command, blocks, substitutions
from docs_output import first_difference

_MARK = "\x1e"
_PAGE_TIMEOUT_S = 900
"""Seconds for all commands of one page."""

_PREAMBLE = r"""
set -o pipefail
stop_server() {
    if [ -n "$SERVER" ]; then kill "$SERVER" 2>/dev/null; wait "$SERVER" 2>/dev/null; fi
    SERVER=
}
trap stop_server EXIT
# A server stands in a terminal of its own; here it goes behind, and the next command waits until it listens.
triage-server() {
    case "$1" in keys|audit|bundles|shadow|queue|webhooks) (triage_server "$@"); return;; esac
    stop_server
    rm -f "$WORLD/.ready"
    triage_server "$@" --host 127.0.0.1 --port "$PORT" --ready-file "$WORLD/.ready" >"$WORLD/.log" 2>&1 &
    SERVER=$!
    for _ in $(seq 600); do
        if [ -s "$WORLD/.ready" ]; then cat "$WORLD/.log"; return 0; fi
        if ! kill -0 "$SERVER" 2>/dev/null; then
            wait "$SERVER"; local status=$?; cat "$WORLD/.log"; return $status
        fi
        sleep 0.1
    done
    cat "$WORLD/.log"; return 1
}
if [ -n "$FORKS" ]; then
    lesion-triage() { "$PROGRAMS/python" -I -S "$FORK" "$FORKS" "$PROGRAMS/lesion-triage" "$@"; }
    triage_server() { exec "$PROGRAMS/python" -I -S "$FORK" "$FORKS" "$PROGRAMS/triage-server" "$@"; }
else
    triage_server() { exec "$PROGRAMS/triage-server" "$@"; }
fi
curl() { command curl --silent --show-error --fail-with-body "$@"; }
"""


@dataclass(frozen=True)
class Outcome:
    """What a page's commands did."""

    faults: list[str]
    """One text for each command that did not do what the page says; with its line and what it printed."""
    ran: int
    not_run: dict[str, int]
    """Reason, and how many commands."""


def run(page: Path, folder: Path, programs: Path, fork_socket: Path | None = None) -> Outcome:
    """Run a page.

    Args:
        page: Markdown.
        folder: the prepared world, which the commands change.
        programs: folder with ``lesion-triage``, ``triage-server`` and ``python``.
        fork_socket: socket of ``docs_fork``; None: each command is a new process of the installed program.
    """
    found = [block for block in blocks(page) if block.kind in ("sh", "python")]
    commands = [command for block in found for command in block.commands]
    script = folder / ".page.sh"
    port = _free_port()
    words = substitutions(page)
    lines = [_PREAMBLE]
    for block in found:
        lines += [
            f"{{ {_localise(line, folder, port, words)}; }} >/dev/null || echo 'NOT PREPARED'"
            for line in block.before
        ]
        for command in block.commands:
            if command.not_run is None:
                lines += _step(block, command, folder, port, words)
    script.write_text("\n".join(lines), encoding="utf-8")
    printed = _run_bash(script, folder, programs, port, fork_socket)
    not_run: dict[str, int] = {}
    for command in commands:
        if command.not_run is not None:
            not_run[command.not_run] = not_run.get(command.not_run, 0) + 1
    return Outcome(list(_find_faults(page, found, printed)), len(commands) - sum(not_run.values()), not_run)


def _step(block: Block, command: Command, folder: Path, port: int, words: dict[str, str]) -> list[str]:
    text = command.text
    if block.kind == "python":
        text = f"python - <<'PAGE'\nimport os\nKEY = os.environ.get('KEY')\n{text}\nPAGE"
        words = {}
    localised = _localise(text, folder, port, words)
    cleanup = [f"rm -rf {block.remade_files}"] if block.remade_files else []
    return [*cleanup, f"echo '{_MARK}{command.line}'", localised, f'echo "{_MARK}={command.line} $?"']


def _localise(text: str, folder: Path, port: int, words: dict[str, str]) -> str:
    """The command with this world's addresses and folders in the place of the page's."""
    for word, command in words.items():
        text = re.sub(rf"(?<![\w$]){word}\b", lambda _, page_text=command: f"$({page_text})", text)
    for page_text, local_text in (
        ("https://triage.example.org", f"http://127.0.0.1:{port}"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("/var/lib/triage", f"{folder}/var/lib/triage"),
        ("/etc/triage", f"{folder}/etc/triage"),
    ):
        text = text.replace(page_text, local_text)
    return text


def _run_bash(script: Path, folder: Path, programs: Path, port: int, fork_socket: Path | None) -> str:
    home = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRIAGE_", "LESION_TRIAGE_"))
    }
    environment = home | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "WORLD": str(folder),
        "PROGRAMS": str(programs),
        "FORK": str(Path(docs_fork.__file__)),
        "FORKS": str(fork_socket or ""),
        "PORT": str(port),
        "COLUMNS": "400",
        "no_proxy": "127.0.0.1",
    }
    process = subprocess.Popen(
        ["bash", str(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=_PAGE_TIMEOUT_S)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _find_faults(page: Path, found: list[Block], printed: str) -> Iterator[str]:
    if "NOT PREPARED" in printed:
        yield f"{page.name}: a 'before' of the page failed:\n{printed[-2000:]}"
    for block in found:
        printed_text = ""
        for command in block.commands:
            if command.not_run is not None:
                continue
            where = f"{page.name}:{command.line}: {command.text}"
            match = re.search(
                rf"{_MARK}{command.line}\n(.*?){_MARK}={command.line} (\d+)\n", printed, flags=re.DOTALL
            )
            if match is None:
                yield f"{where}\n  was not reached:\n{printed[-2000:]}"
                continue
            printed_text += match[1]
            if int(match[2]) != command.status:
                yield f"{where}\n  ended with {match[2]}, expected {command.status}:\n{match[1][-2000:]}"
        shown = block.expected_output
        if shown is None or any(word.startswith("shows: not checked") for word in shown.comments):
            continue
        if all(command.not_run is None for command in block.commands):
            difference = first_difference(shown.text, printed_text, shown.comments)
            if difference is not None:
                yield (
                    f"{page.name}:{shown.line}: prints something else:\n{printed_text}\nlacking: {difference}"
                )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def split_words(command: str) -> list[str]:
    """The words of a simple command without its variables and up to a pipe; empty where it is not simple."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return list(takewhile(lambda word: word not in {"|", ">", ">>", "&&", ";", "&"}, words))
