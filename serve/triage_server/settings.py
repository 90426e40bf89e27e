"""What the operator may set: command line first, then ``TRIAGE_*`` variables, then the defaults below.

Imports pydantic and the exception tree.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from lesion_triage.errors import ConfigError

PREFIX = "TRIAGE_"

_FLAGS = {
    "bundle": "--bundle",
    "host": "--host",
    "port": "--port",
    "threads": "--workers-threads",
    "ready_file": "--ready-file",
}
Seconds = Annotated[FiniteFloat, Field(gt=0)]


class Settings(BaseModel):
    """Everything the server reads besides the bundle. ``max_body_bytes`` is ``TRIAGE_MAX_BODY_BYTES``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bundle: Path
    """Folder of the sealed bundle to serve."""
    host: str = "127.0.0.1"
    """Address to listen on. This version answers whoever can reach it, so only loopback is accepted."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes any free port; the ready line says which."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Cases scored at once. None: as many as the processors this process may use."""
    queue: int = Field(default=64, ge=0)
    """Cases that may wait, or be on their way in, beside those being scored; one more is answered 503."""
    max_body_bytes: int = Field(default=64 * 2**20, ge=1)
    """A longer request is refused before it is read."""
    max_pending_bytes: int = Field(default=512 * 2**20, ge=1)
    """Photographs held in memory at once, over all requests; beyond it the answer is 503."""
    body_timeout_s: Seconds = 60.0
    """A request that has not arrived whole by then gives its place up."""
    drain_timeout_s: int = Field(default=30, ge=1)
    """After SIGTERM, how long cases that are under way may take to finish."""
    language: str = "en"
    """Of an answer whose request asks for none, or for one that there is not."""
    catalogues: Path | None = None
    """Folder of a site's own message catalogues; see docs/messages.md."""
    ready_file: Path | None = None
    """Written with the server's URL once it listens, removed when it stops."""


def variables() -> dict[str, str]:
    """Environment variable name to field name, for every field."""
    return {PREFIX + name.upper(): name for name in Settings.model_fields}


def load(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        ConfigError: an unknown ``TRIAGE_*`` variable, a value out of range, no bundle.
        SystemExit: argparse met an unknown option, or ``--help``.
    """
    values = _from_environment(environment)
    said = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    values |= said
    if "bundle" not in values:
        raise ConfigError(f"No bundle to serve: say --bundle DIR or set {PREFIX}BUNDLE.")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        where = _FLAGS[name] if name in said else PREFIX + name.upper()
        raise ConfigError(f"{where}: {problem['msg']}, found {problem['input']!r}.") from None
    refuse_beyond_loopback(settings.host)
    return settings


def refuse_beyond_loopback(host: str) -> None:
    """This version has no authentication, so nobody but this machine may reach it.

    Raises:
        ConfigError: ``host`` is not a loopback address. Other names are not resolved: what a name
            means can change after it was checked.
    """
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"Refusing to listen on '{host}': this version has no authentication, so the host must be "
            "127.0.0.1, ::1 or localhost; put an authenticating proxy on this machine in front of it."
        )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = variables()
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise ConfigError(f"Unknown environment variable {variable}; {hint}")
        found[known[variable]] = value
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triage-server",
        description="Serve one sealed bundle over HTTP, on this machine only.",
        epilog=f"Also settable, and the only way to set the rest: {', '.join(variables())}.",
        allow_abbrev=False,
    )
    parser.add_argument(_FLAGS["bundle"], metavar="DIR", help="folder of the sealed bundle")
    parser.add_argument(_FLAGS["host"], help="loopback address to listen on (default 127.0.0.1)")
    parser.add_argument(_FLAGS["port"], help="0 takes any free port (default 8080)")
    parser.add_argument(
        _FLAGS["threads"], dest="threads", metavar="N", help="cases scored at once (default: processors)"
    )
    parser.add_argument(
        _FLAGS["ready_file"],
        metavar="PATH",
        help="write the server's URL here once it listens, remove it at the end",
    )
    return parser
