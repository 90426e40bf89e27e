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
from docs_output import missing

_MARK = "\x1e"
_SEVERAL = 900
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


def run(page: Path, folder: Path, programs: Path, forks: Path | None = None) -> Outcome:
    """Run a page.

    Args:
        page: Markdown.
        folder: the prepared world, which the commands change.
        programs: folder with ``lesion-triage``, ``triage-server`` and ``python``.
        forks: socket of ``docs_fork``; None: each command is a new process of the installed program.
    """
    found = [block for block in blocks(page) if block.kind in ("sh", "python")]
    commands = [command for block in found for command in block.commands]
    script = folder / ".page.sh"
    port = _free_port()
    words = substitutions(page)
    lines = [_PREAMBLE]
    for block in found:
        lines += [
            f"{{ {_asked(line, folder, port, words)}; }} >/dev/null || echo 'NOT PREPARED'"
            for line in block.before
        ]
        for command in block.commands:
            if command.not_run is None:
                lines += _step(block, command, folder, port, words)
    script.write_text("\n".join(lines), encoding="utf-8")
    printed = _bash(script, folder, programs, port, forks)
    not_run: dict[str, int] = {}
    for command in commands:
        if command.not_run is not None:
            not_run[command.not_run] = not_run.get(command.not_run, 0) + 1
    return Outcome(list(_faults(page, found, printed)), len(commands) - sum(not_run.values()), not_run)


def _step(block: Block, command: Command, folder: Path, port: int, words: dict[str, str]) -> list[str]:
    text = command.text
    if block.kind == "python":
        text = f"python - <<'PAGE'\nimport os\nKEY = os.environ.get('KEY')\n{text}\nPAGE"
        words = {}
    asked = _asked(text, folder, port, words)
    room = [f"rm -rf {block.anew}"] if block.anew else []
    return [*room, f"echo '{_MARK}{command.line}'", asked, f'echo "{_MARK}={command.line} $?"']


def _asked(text: str, folder: Path, port: int, words: dict[str, str]) -> str:
    """The command with this world's addresses and folders in the place of the page's."""
    for word, command in words.items():
        text = re.sub(rf"(?<![\w$]){word}\b", lambda _, said=command: f"$({said})", text)
    for said, here in (
        ("https://triage.example.org", f"http://127.0.0.1:{port}"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("/var/lib/triage", f"{folder}/var/lib/triage"),
        ("/etc/triage", f"{folder}/etc/triage"),
    ):
        text = text.replace(said, here)
    return text


def _bash(script: Path, folder: Path, programs: Path, port: int, forks: Path | None) -> str:
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
        "FORKS": str(forks or ""),
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
        return process.communicate(timeout=_SEVERAL)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _faults(page: Path, found: list[Block], printed: str) -> Iterator[str]:
    if "NOT PREPARED" in printed:
        yield f"{page.name}: a 'before' of the page failed:\n{printed[-2000:]}"
    for block in found:
        said = ""
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
            said += match[1]
            if int(match[2]) != command.status:
                yield f"{where}\n  ended with {match[2]}, expected {command.status}:\n{match[1][-2000:]}"
        shown = block.shown
        if shown is None or any(word.startswith("shows: not checked") for word in shown.said):
            continue
        if all(command.not_run is None for command in block.commands):
            lacking = missing(shown.text, said, shown.said)
            if lacking is not None:
                yield f"{page.name}:{shown.line}: prints something else:\n{said}\nlacking: {lacking}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def words_of(command: str) -> list[str]:
    """The words of a simple command without its variables and up to a pipe; empty where it is not simple."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return list(takewhile(lambda word: word not in {"|", ">", ">>", "&&", ";", "&"}, words))
