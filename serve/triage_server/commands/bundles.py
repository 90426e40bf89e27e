"""``triage-server bundles``: replace the bundle in use, and roll back.

Imports the settings, the lock and what admits a bundle. A link names the bundle to serve, and a second link
beside it the one before. Who may change the links is decided by file permissions.
"""

from __future__ import annotations

import argparse
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesion_triage.bundle.files import flush
from lesion_triage.errors import BundleError, ConfigError
from triage_server.exclusive_lock import exclusive_lock
from triage_server.settings import PREFIX, Settings, load

_FORMER = ".former"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``bundles`` subcommand."""
    verbs = subparsers.add_parser("bundles", help="which bundle is served").add_subparsers(required=True)
    activating = verbs.add_parser("activate", help="verify a bundle, then point the link to it")
    activating.add_argument("folder", type=Path, help="folder of the sealed bundle")
    activating.set_defaults(run=_activate)
    back = verbs.add_parser("rollback", help="verify the previous bundle, then point the link back to it")
    back.set_defaults(run=_rollback)
    showing = verbs.add_parser(
        "show", help="print the bundle that the link points to, and the one that rollback would restore"
    )
    showing.set_defaults(run=_show)
    for verb in (activating, back, showing):
        verb.add_argument(
            "--link", type=Path, help=f"link that the server is started with (default: {PREFIX}BUNDLE)"
        )
    for verb in (activating, back):
        verb.add_argument("--trusted", help=f"public key, or folder of them (default: {PREFIX}TRUSTED_KEYS)")


def _activate(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    current = _target(settings.bundle)
    # Not Path.resolve, which raises for a link to itself.
    folder = Path(os.path.realpath(arguments.folder))
    if folder == Path(os.path.realpath(settings.bundle)):
        raise BundleError(f"{settings.bundle} points to this bundle already; nothing was changed.")
    return _switch(settings, current, folder)


def _rollback(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    current = _target(settings.bundle)
    previous = _previous(settings.bundle)
    if previous is None:
        raise BundleError(f"{settings.bundle}: there is no previous bundle; name one with activate.")
    return _switch(settings, current, previous)


def _show(arguments: argparse.Namespace) -> int:
    link = _settings(arguments).bundle
    for what, named in (("served", _target(link)), ("before", _previous(link))):
        print(f"{what}  {named or 'none'}")
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    """The server's settings, as far as this environment sets them."""
    said = [] if arguments.link is None else ["--bundle", str(arguments.link)]
    settings = load(said, os.environ)
    link = settings.bundle.absolute()
    if not link.is_symlink() and link.exists():
        raise ConfigError(
            f"{link}: expected a symbolic link, found a folder or file; let {PREFIX}BUNDLE name a link "
            "beside the bundles, and restart the server."
        )
    changes: dict[str, object] = {"bundle": link}
    if getattr(arguments, "trusted", None) is not None:
        changes |= {"trusted_keys": Path(arguments.trusted), "allow_unsigned": False}
    return settings.model_copy(update=changes)


def _switch(settings: Settings, current: Path | None, folder: Path) -> int:
    """Verify a bundle, point the link at it and the second link at the former one; a kill loses neither.

    Raises:
        BundleError: the bundle fails a check, or the link names no longer ``current``: the bundle to go back
            to would be lost, and a second rollback would undo the first.
    """
    from triage_server.hot_swap import verify_bundle  # noqa: PLC0415 - onnxruntime is not needed to list keys

    verified = verify_bundle(folder, settings)
    link = settings.bundle
    former, draft = _former_links(link)
    with exclusive_lock(link):
        if _target(link) != current:
            raise BundleError(
                f"{link}: another command pointed it to {_target(link) or 'nothing'} meanwhile; this one "
                "changed nothing. Look at it with 'bundles show', and repeat the command if still wanted."
            )
        if current is not None:
            _replace_link(draft, current)
        _replace_link(link, folder)
        if current is not None:
            _replace_link(former, current)
        draft.unlink(missing_ok=True)
    print(
        f"{link} points to {verified.bundle.header.name} {verified.bundle.sha256[:16]}, signer: "
        f"{verified.signer or 'not checked'}"
    )
    print(
        "a running server verifies it again and switches to it within seconds: see GET /v1/bundle, or its log"
    )
    return 0


def _target(link: Path) -> Path | None:
    """Target of a link, whether or not it exists; None if it is no link."""
    return (link.parent / link.readlink()).absolute() if link.is_symlink() else None


def _former_links(link: Path) -> tuple[Path, Path]:
    """The link to the bundle before, and its draft, which is left behind only by an interrupted change."""
    return link.with_name(f"{link.name}{_FORMER}"), link.with_name(f".{link.name}{_FORMER}")


def _previous(link: Path) -> Path | None:
    """The bundle before the one in use; None: there is none.

    A draft left behind counts only if the link now names another bundle, so that the change had been made.
    """
    former, draft = _former_links(link)
    named = [_target(draft), _target(former)]
    return next((one for one in named if one not in (None, _target(link))), None)


def _replace_link(link: Path, target: Path) -> None:
    """Replace a link atomically. The target is stored relative to the link's folder if it is inside it."""
    near = target.is_relative_to(link.parent.resolve())
    said = target.relative_to(link.parent.resolve()) if near else target
    draft = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.symlink_to(said)
        draft.replace(link)
        flush(link.parent)
    except OSError as error:
        raise ConfigError(f"{link}: the link cannot be changed ({error.strerror}).") from None
    finally:
        with suppress(OSError):
            draft.unlink()
