"""``lesion-triage demo``: the whole pipeline on drawn pictures, then three cases over HTTP."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from PIL import Image
from rich.table import Table

from lesion_triage import config_file, pipeline, predictions
from lesion_triage.bundle.store import open_bundle
from lesion_triage.console import console, echo
from lesion_triage.errors import ConfigError, RunError
from lesion_triage.runs import RUNS, Run

_READY_SECONDS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("config", type=Path, help="a configuration with drawn data, configs/demo.yaml")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="folder of all runs (%(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the demonstration. Returns 0."""
    return demo(arguments.config, arguments.runs)


def demo(path: Path, root: Path) -> int:
    """Run the pipeline, serve the bundle, ask about three cases, stop the server, say where the report is.

    Raises:
        ConfigError: the configuration's data are not synthetic (a demonstration sends no patient's picture),
            or it asks for several processes.
        RunError: the server did not start.
    """
    loaded = config_file.load(path)
    if loaded.data.source != "synthetic":
        raise ConfigError(f"{path}: the demonstration draws its data; data.source must be synthetic.")
    if not pipeline.is_single_process(loaded):
        raise ConfigError(f"{path}: the demonstration trains in one process; set train.devices to 1.")
    began = time.monotonic()
    run = pipeline.run_verb("run", loaded, root)
    echo("serve")
    with _server(run.folder / "bundle") as url:
        echo(f"  {url}")
        answers = {title: _post_picture(url, picture) for title, picture in _cases(run).items()}
    echo("  server stopped")
    _print_answers(answers)
    echo("The lesions are drawn: none of these numbers says anything about people.")
    echo(f"Report: {run.folder / 'report' / 'index.html'}")
    echo(f"Done in {time.monotonic() - began:.0f} s. `make mlflow` shows the run.")
    return 0


def _cases(run: Run) -> dict[str, bytes]:
    """The test split's highest and lowest score, and the highest again, darkened."""
    table, _ = predictions.read(run.folder / "predictions", "test")
    table = table.behind_gate(open_bundle(run.folder / "bundle").policy.novelty_limit)
    rows = sorted((row for row in table.rows if row.logit is not None), key=lambda row: row.logit or 0.0)
    by_id = {record.image_id: record for record in pipeline.records(run, "test")}
    root = pipeline.data_root(run)
    assert isinstance(root, Path)
    lowest, highest = (root / by_id[row.image_id].path for row in (rows[0], rows[-1]))
    with Image.open(highest) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").point(lambda level: level * 0.08).save(buffer, "JPEG", quality=90)
    return {
        "highest test score": highest.read_bytes(),
        "lowest test score": lowest.read_bytes(),
        "highest, darkened": buffer.getvalue(),
    }


@contextmanager
def _server(bundle: Path) -> Iterator[str]:
    """A ``triage-server`` process on a free loopback port; stopped at the end, whatever happens."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "triage_server", "--bundle", str(bundle), "--port", "0"]
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                [*command, "--ready-file", str(ready)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={
                    **_environment_without("TRIAGE_"),
                    "TRIAGE_ALLOW_UNSIGNED": "1",
                },  # sealed just now, on loopback
            )
        try:
            deadline = time.monotonic() + _READY_SECONDS
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RunError(f"the server did not start: {log.read_text(errors='replace')[-500:]}")
                time.sleep(0.05)
            yield ready.read_text(encoding="utf-8").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _environment_without(prefix: str) -> dict[str, str]:
    """The environment without the settings of another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix)}


def _post_picture(url: str, picture: bytes) -> dict[str, object]:
    request = Request(  # noqa: S310 - http to our own loopback server
        f"{url}/v1/triage", data=picture, headers={"Content-Type": "image/jpeg"}, method="POST"
    )
    try:
        # Whatever proxy leads to the internet does not lead to this machine's own loopback.
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            answer: dict[str, object] = json.load(response)
    except OSError as error:
        raise RunError(f"the server did not answer: {error}.") from None
    return answer


def _print_answers(answers: dict[str, dict[str, object]]) -> None:
    table = Table(title="Three drawn cases over HTTP: POST /v1/triage")
    for column in ("photograph", "disposition", "band", "score", "threshold", "why"):
        table.add_column(column, overflow="fold")
    for title, answer in answers.items():
        score, threshold = answer["score"], answer["threshold"]
        reasons = answer["reasons"]
        images = answer["images"]
        assert isinstance(reasons, list)
        assert isinstance(images, list)
        codes = [reason["code"] for reason in reasons]
        codes += [reason["code"] for image in images for reason in image["reasons"]]
        table.add_row(
            title,
            str(answer["disposition"]),
            str(answer["priority_band"]),
            f"{score:.4f}" if isinstance(score, float) else "none",
            f"{threshold:.4f}",
            "\n".join(codes),
        )
    console.print(table)
