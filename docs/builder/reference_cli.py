"""Pages of the reference about commands and settings, read off the parsers and the settings themselves.

Imports the command line, and the server's settings and subcommands.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise

from lesion_triage import cli
from triage_server import commands as server_commands
from triage_server.settings import Settings, variables

_GENERATED_NOTE = "<!-- Written by docs/builder from the code. -->\n\n"


def commands() -> str:
    """Each verb of ``lesion-triage`` and each subcommand of ``triage-server``: usage, and its arguments."""
    text = (
        f"{_GENERATED_NOTE}# Commands\n\n`lesion-triage VERB --help` prints the same. What a status means: "
        "[exit statuses](../configuration.md#exit-statuses).\n"
    )
    for name, verb in _subparsers(cli.parser()):
        text += f"\n## lesion-triage {name}\n\n{_describe_parser(verb)}"
        for subcommand, subparser in _subparsers(verb):
            text += f"\n### lesion-triage {name} {subcommand}\n\n{_describe_parser(subparser)}"
    for name, command_parser in _subparsers(server_commands.parser()):
        text += f"\n## triage-server {name}\n\n"
        for subcommand, subparser in _subparsers(command_parser):
            text += f"\n### triage-server {name} {subcommand}\n\n{_describe_parser(subparser)}"
    return text


def settings() -> str:
    """What ``triage-server --bundle DIR`` may be told, by flag or variable."""
    rows = [
        (
            f"`{variable}`",
            _type_name(str(Settings.model_fields[field].annotation)),
            _default_text(field),
            _setting_text(field),
        )
        for variable, field in variables().items()
    ]
    return (
        f"{_GENERATED_NOTE}# Settings of the server\n\n`triage-server --bundle DIR [--host H] [--port N] "
        "[--workers-threads N] [--ready-file FILE]`; everything else by variable. A flag wins over its "
        "variable; an unknown `TRIAGE_*` variable is refused. What they are for: "
        "[configuration](../configuration.md) and [operating](../operating.md).\n\n"
        + table(("variable", "kind", "default", "meaning"), rows)
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars and line breaks in cells are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    escaped = (" | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in escaped)


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _describe_parser(parser: argparse.ArgumentParser) -> str:
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
    text = f"{_sentence(parser.description)}\n\n```text\n{_wrap_usage(usage)}\n```\n\n"
    rows = [_argument_row(parser, action) for action in parser._actions if action.dest != "help"]
    return text + (table(("argument", "meaning"), rows) if rows else "")


def _argument_row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    formatter = parser._get_formatter()
    name = formatter._format_action_invocation(action) or action.dest
    help_text = formatter._expand_help(action) if action.help else ""
    if action.choices and not action.option_strings:
        help_text = f"{help_text} One of {', '.join(map(str, action.choices))}."
    return f"`{name}`", _escape_markdown(help_text)


def _escape_markdown(words: str) -> str:
    """Words of help as Markdown: what looks like an option, a key or a tag of HTML stays as typed."""
    return re.sub(r"([<>*_\[\]{}])", r"\\\1", words)


def _wrap_usage(usage: str, width: int = 88) -> str:
    """Usage in lines of ``width``, broken between arguments only."""
    lines = [""]
    for word in re.findall(r"\[[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*\]|\([^()]*\)|\S+", usage):
        if len(lines[-1]) + len(word) > width:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\n".join(lines)


def _sentence(help_text: str | None) -> str:
    text = _escape_markdown(
        re.sub(r"^\d\. ", "", (help_text or "").strip())
    )  # a stage's number would begin a list
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _type_name(annotation: str) -> str:
    types = re.findall(r"SecretStr|Path|bool|int|float|str|tuple", annotation)
    type_words = {"Path": "path", "bool": "0 or 1", "int": "whole number", "float": "number", "str": "text"}
    type_words |= {"SecretStr": "text, secret", "tuple": "list"}
    return type_words[types[0]] if types else "number"


def _default_text(field: str) -> str:
    found = Settings.model_fields[field]
    if found.is_required():
        return "required"
    return "none" if found.default is None or found.default == () else f"`{found.default}`"


@functools.cache
def _setting_docstrings() -> dict[str, str]:
    """What stands under each setting. pydantic could read it too, at every start of the server."""
    body = ast.parse(inspect.getsource(Settings)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: below.value.value
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def _setting_text(field: str) -> str:
    return _setting_docstrings().get(field, "").replace("``", "`")
