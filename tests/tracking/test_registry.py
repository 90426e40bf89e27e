"""The registry and what it serves, against an MLflow server of its own in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import tiny_bundle
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import Bundle
from lesion_triage.errors import RegistryError
from lesion_triage.tracking.registry import Registry, Version

NAME = "lesion-triage"
FLAGS = RedFlags.model_validate(
    {
        "flags": [
            {
                "code": "bleeding",
                "when": {"field": "bleeding", "is": True},
                "action": {"refer": True},
                "source": "a test",
            }
        ]
    }
)


@dataclass(frozen=True)
class Served:
    """A bundle in the registry of a running server."""

    home: Path
    uri: str
    registry: Registry
    version: Version
    bundle: Bundle


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(home: Path, path: str, port: int, *command: str, **more: str) -> Iterator[str]:
    """A program of MLflow's, until it answers; its whole group is ended afterwards."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # It starts `uvicorn` by name, which an environment that is not activated keeps beside its Python.
    quiet["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    with (home / "server.log").open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **quiet, **more},
            stdout=log,
            stderr=log,
            cwd=home,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait(address + path, running, home)
        yield address
    finally:
        with suppress(ProcessLookupError):  # it has ended, and why is told above
            os.killpg(running.pid, signal.SIGTERM)
        running.wait(60)


def wait(url: str, running: subprocess.Popen, home: Path) -> None:
    deadline = time.monotonic() + 500  # seconds on an idle machine, minutes on a busy one
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if running.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail((home / "server.log").read_text()[-3000:])


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("Jane-Doe")
    store, kept = f"sqlite:///{home / 'mlflow.db'}", str(home / "kept")
    port = free_port()
    command = ("server", "--backend-store-uri", store, "--artifacts-destination", kept, "--workers", "1")
    with process(home, "/health", port, *command) as uri:
        bundle = tiny_bundle.make(home / "bundle of Jane-Doe", red_flags=FLAGS)
        registry = Registry(uri)
        version = registry.register(NAME, bundle, {"report/results.json": b"{}"}, "experiment", None)
        registry.set_alias(version, "champion", {"promoted.champion.by": "Ada"}, "the first")
        yield Served(home, uri, registry, version, bundle)


@pytest.fixture(scope="module")
def model(served):
    """The champion, loaded as MLflow's users load it."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(served.uri)
    yield mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    mlflow.set_tracking_uri(before)


def frame(images: list, history: list):
    import pandas as pd

    return pd.DataFrame({"images": images, "history": history})


def test_an_alias_leads_to_the_version_and_the_bundle_comes_back_whole(served):
    found = served.registry.find_by_alias(NAME, "champion")
    assert found is not None
    assert (found.number, found.bundle_sha256) == ("1", served.bundle.sha256)
    assert found.description == "the first"
    assert served.registry.find_by_bundle(NAME, served.bundle.sha256) == found
    assert served.registry.find_by_alias(NAME, "challenger") is None
    assert served.registry.find_by_alias("another", "champion") is None
    assert served.registry.find_by_bundle(NAME, "0" * 64) is None
    with served.registry.downloaded(found) as folder:
        assert (folder / "bundle" / "model.onnx").read_bytes() == served.bundle.graph
        assert (folder / "record" / "report" / "results.json").read_bytes() == b"{}"


def test_the_loaded_model_answers_as_the_scorer_does(served, model):
    files = [tiny_bundle.picture_bytes("referred"), tiny_bundle.picture_bytes("below")]
    histories = [None, {"bleeding": True, "age_years": 61}, {}]
    images = [[files[0]], [base64.b64encode(files[1]).decode()], files]
    rows = model.predict(frame(images, histories)).to_dict("records")
    scorer = Scorer(served.bundle)
    told = (History(), History(bleeding=True, age_years=61), History())
    cases = ([files[0]], [files[1]], files)
    for row, case, history in zip(rows, cases, told, strict=True):
        answer = scorer.score(case, history)
        assert row["disposition"] == answer.disposition
        assert row["score"] == answer.score
        assert row["threshold"] == answer.threshold
        assert row["priority_band"] == answer.priority_band
        assert row["reasons"] == [reason.code for reason in answer.reasons]
        assert row["red_flags"] == [flag.code for flag in answer.red_flags]
        assert (row["certificate_id"], row["bundle_sha256"]) == (answer.certificate_id, answer.bundle_sha256)
        assert row["synthetic"] is True
    assert rows[1]["disposition"] == "needs_in_person"
    assert rows[1]["score"] < rows[1]["threshold"], "the red flag alone sends it up"


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_row_without_photographs_is_not_scored_and_the_others_are(model, gap):
    good = tiny_bundle.picture_bytes("referred")
    rows = model.predict(frame([[good], gap], [None, None])).to_dict("records")
    assert [row["disposition"] for row in rows] == ["needs_in_person", "not_scored"]
    assert rows[1]["error_code"] == "scoring_failed"


def test_a_cell_that_is_no_list_of_files_costs_its_own_case_alone(model):
    good = tiny_bundle.picture_bytes("referred")
    cells = [[good], good, base64.b64encode(good).decode(), 7, {"AAAA": good}, (good,)]
    rows = model.predict(frame(cells, [None] * len(cells))).to_dict("records")
    assert [row["error_code"] for row in rows] == [None, *["image_not_base64"] * 4, None]


def test_a_case_that_cannot_be_scored_says_so_and_the_others_are_scored(model):
    black, good = tiny_bundle.picture_bytes("black"), tiny_bundle.picture_bytes("referred")
    images = [[b"no picture"], ["%%%"], [], [good], [black]]
    rows = model.predict(frame(images, [None] * 5)).to_dict("records")
    assert [row["disposition"] for row in rows] == [
        "not_scored",
        "not_scored",
        "not_scored",
        "needs_in_person",
        "ungradable",
    ]
    assert [row["error_code"] for row in rows[:3]] == [
        "image_format_not_supported",
        "image_not_base64",
        "scoring_failed",
    ]
    assert all(row["score"] is None for row in rows[:3])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"history": [{"bleding": True}]}, r"case 1 cannot be read: bleding"),
        ({"history": [{"bleeding": "yes"}]}, r"case 1 cannot be read: bleeding"),
        ({"history": ['{"age_years": 400}']}, r"case 1 cannot be read: age_years"),
        ({"history": ['{"fever": true, "fever": false}']}, r"case 1 cannot be read: fever"),
        ({"history": [7]}, r"case 1 cannot be read; expected fields"),
        ({"histroy": [{}]}, r"The column history is missing"),
        ({"bleeding": [True]}, r"The column history is missing"),
    ],
    ids=["misspelt", "word", "range", "twice", "kind", "column", "flat"],
)
def test_a_history_that_is_misspelt_is_refused_and_not_dropped(model, columns, expected):
    import pandas as pd
    from mlflow.exceptions import MlflowException

    good = tiny_bundle.picture_bytes("below")
    with pytest.raises(MlflowException, match=expected):
        model.predict(pd.DataFrame({"images": [[good]], **columns}))


def test_a_table_without_photographs_is_refused(model):
    import pandas as pd
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"The column images is missing; expected 'images', a list"):
        model.predict(pd.DataFrame({"history": [{"bleeding": True}]}))


def test_what_a_table_left_empty_was_not_said(model):
    good = tiny_bundle.picture_bytes("below")
    gaps = [{"bleeding": float("nan"), "sex": None, "age_years": 40.0}, float("nan")]
    rows = model.predict(frame([[good], [good]], gaps)).to_dict("records")
    assert [row["disposition"] for row in rows] == ["below_threshold"] * 2


def test_nothing_is_pickled_and_no_place_or_name_of_the_sealing_machine_is_kept(served):
    files = [path for path in (served.home / "kept").rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in (".pkl", ".pickle", ".cloudpickle")]
    assert {path.name for path in files} >= {"MLmodel", "served.py", "bundle.json"}
    wanted = (b"Jane-Doe", str(Path(__file__).parents[2]).encode())
    for path in files:
        content = path.read_bytes()
        assert not [word for word in wanted if word in content], path.name
    # The database says where the server keeps files, and that lies below this very folder.
    stored = (served.home / "mlflow.db").read_bytes()
    assert b"bundle of Jane-Doe" not in stored
    requirements = next(path for path in files if path.name == "requirements.txt").read_text().split()
    assert any(line.startswith("lesion-triage[serve]==") for line in requirements)
    assert not [line for line in requirements if line.startswith(("torch", "timm", "scikit-learn"))]


def test_what_is_served_names_no_condition_and_promises_nothing(served, model):
    good = tiny_bundle.picture_bytes("below")
    row = model.predict(frame([[good]], [{"bleeding": True}])).to_dict("records")[0]
    said = json.dumps(row).replace(english_catalogue().notice, "")
    assert forbidden_words_in("en", said) == []
    assert row["notice"] == english_catalogue().notice


def test_a_bundle_that_was_changed_in_the_registry_is_not_given_back(served):
    other = tiny_bundle.make(served.home / "another", threshold=0.4)
    version = served.registry.register("changed", other, {}, "experiment", None)
    (sealed,) = (
        path
        for path in (served.home / "kept").rglob("bundle.json")
        if path.read_bytes() == (other.folder / "bundle.json").read_bytes()
    )
    for path in sealed.parent.rglob("*"):
        if path.is_file():
            path.write_bytes((served.bundle.folder / path.relative_to(sealed.parent)).read_bytes())
    with (
        pytest.raises(RegistryError, match=r"expected the bundle .* it was changed in the registry"),
        served.registry.downloaded(version),
    ):
        pass


def test_mlflow_serves_the_champion_with_the_policy_inside(served):
    port = free_port()
    where = {"MLFLOW_TRACKING_URI": served.uri}
    command = ("models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local")
    good = tiny_bundle.picture_bytes("referred")
    case = {"images": [base64.b64encode(good).decode()], "history": {"bleeding": True}}
    with process(served.home, "/ping", port, *command, **where) as address:
        answer = post(f"{address}/invocations", {"dataframe_records": [case, {**case, "history": None}]})
        expected = Scorer(served.bundle).score([good])
        for row in answer["predictions"]:
            assert row["score"] == expected.score
            assert row["disposition"] == "needs_in_person"
            assert row["certificate_id"] == expected.certificate_id
        assert [row["red_flags"] for row in answer["predictions"]] == [["bleeding"], []]
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{address}/invocations", {"dataframe_records": [{**case, "history": {"bleding": True}}]})
        assert refused.value.code == 400
        refused.value.close()


def post(url: str, tree: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(tree).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())
