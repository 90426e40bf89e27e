"""Scoring part by part on several machines, with Ray Data. The only file that imports ray.

Only part numbers and counts are sent: each worker reads cases and photographs from the shared disk and writes
its part there. Ray's usage reporting is switched off (``lesion_triage/__init__.py``).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from lesion_triage.backlog.engine import Progress, make_row_builder, score_part
from lesion_triage.backlog.shards import Shards
from lesion_triage.backlog.state import software
from lesion_triage.bundle.store import open_bundle
from lesion_triage.console import echo
from lesion_triage.errors import BacklogError, LesionTriageError

_Batch = dict[str, Any]

_START_ATTEMPTS = 3
"""Attempts to start a cluster: Ray allows a node thirty seconds, too few for imports on a busy machine."""


class _Worker:
    """A Ray actor: a loaded bundle that scores parts, one after the other, on one processor."""

    def __init__(self, bundle: str, folder: str, accept_unreadable: bool) -> None:
        self._shards = Shards(Path(folder))
        if (here := software()) != self._shards.state.software:
            raise BacklogError(f"a machine of the cluster has different software from this run: {here}.")
        self._row_builder = make_row_builder(self._shards, open_bundle(Path(bundle)))
        self._listing = self._shards.listing()
        self._accept_unreadable = accept_unreadable

    def __call__(self, batch: _Batch) -> _Batch:
        """Score the parts with the given numbers; our own errors are returned as sentences, not raised."""
        scored, failed = [], []
        for part in batch["part"].tolist():
            try:
                cases = score_part(
                    self._shards,
                    self._listing,
                    self._row_builder,
                    part,
                    accept_unreadable=self._accept_unreadable,
                )
                scored.append(cases)
                failed.append("")
            except LesionTriageError as error:
                scored.append(0)
                failed.append(str(error))
        return {"scored": np.array(scored), "failed": np.array(failed)}


def score_parts(
    shards: Shards,
    bundle: Path,
    parts: Sequence[int],
    address: str | None,
    progress: Progress,
    *,
    accept_unreadable: bool = False,
) -> None:
    """Score parts on a cluster. Bundle, photographs and folder have the same path on every machine.

    Args:
        shards: where they go.
        bundle: folder of the bundle.
        parts: numbers of parts.
        address: of a running cluster; None starts one on this machine, which ends with this call.
        progress: of cases.
        accept_unreadable: see ``engine.write_part``.

    Raises:
        BacklogError: the cluster cannot be reached or is too small, or a worker failed.
    """
    if not parts:
        return
    _connect(address)
    try:
        # Actors that take every processor leave Ray Data none for its own tasks, and all wait for ever.
        actors = int(ray.cluster_resources().get("CPU", 0)) - 1  # type: ignore[no-untyped-call]
        if actors < 1:
            raise BacklogError("Ray has one processor, which it needs itself; use --engine local.")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        blocks = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        done = blocks.map_batches(
            _Worker,
            fn_constructor_args=(str(bundle.resolve()), str(shards.folder.resolve()), accept_unreadable),
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(parts))),
            num_cpus=1,
            batch_size=1,
        )
        for row in done.iter_rows():
            if row["failed"]:
                raise BacklogError(f"a worker of the cluster: {row['failed']}")
            progress(int(row["scored"]))
    except ray.exceptions.RayError as error:
        raise BacklogError(f"the cluster failed ({_last_line(error)}); what is written is kept.") from None
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    """Join a cluster, or start one that listens on this machine only."""
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        host = _check_reachable(address)
        if host.startswith("127."):  # otherwise Ray looks for this machine under its public address
            settings["_node_ip_address"] = host
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        try:
            ray.init(address or "local", **settings)
            return
        except Exception as error:  # Ray raises a bare Exception if a node is slow to start
            ray.shutdown()
            if not attempts_left or address is not None:
                raise _unreachable_error(address or "on this machine", _last_line(error)) from None
            echo("  Ray was slow to start; trying again")


def _check_reachable(address: str) -> str:
    """The host of an address where something listens: Ray itself retries for minutes before it gives up.

    Raises:
        BacklogError: nothing listens there, or it is not an address.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable_error(address, str(error)) from None
    return host


def _unreachable_error(where: str, why: str) -> BacklogError:
    return BacklogError(f"Ray {where}: no usable cluster ({why}).")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
