"""The files of serve/deploy fit the server that is here, as far as schema, promtool and systemd can tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import httpx_60s
import tiny_bundle as tiny
from confined import NOT_HERE
from triage_server import audit_log
from triage_server.page import database_threads
from triage_server.settings import load, variables
from triage_server.webhooks import dispatcher

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "serve" / "deploy"
KUBERNETES = DEPLOY / "kubernetes" / "triage-server.yaml"
YAML_FILES = sorted(path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def of_kind(kind: str, file: Path = KUBERNETES) -> dict[str, Any]:
    return next(document for document in documents(file) if document["kind"] == kind)


def environments() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Each way to run the server: its variables, and where its volumes lie."""
    pod = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    yield "kubernetes", of_kind("ConfigMap")["data"], pod
    runtime = of_kind("ServingRuntime", DEPLOY / "kubernetes" / "kserve.yaml")["spec"]["containers"][0]
    yield "kserve", {one["name"]: one["value"] for one in runtime["env"]}, runtime
    service = documents(DEPLOY / "compose.yaml")[0]["services"]["server"]
    mounts = [{"mountPath": volume.split(":")[1]} for volume in service["volumes"]]
    yield "compose", service["environment"], {"volumeMounts": mounts}


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.relative_to(DEPLOY).as_posix())
def test_file_is_yaml(file: Path) -> None:
    assert all(isinstance(document, dict) for document in documents(file))


def test_no_file_names_a_variable_that_the_server_would_refuse() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert files
    for file in files:
        named = set(re.findall(r"\bTRIAGE_[A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8")))
        assert named - {"TRIAGE_NAME"} <= variables().keys(), file


@pytest.mark.parametrize(
    ("environment", "container"), [pytest.param(said, pod, id=name) for name, said, pod in environments()]
)
def test_settings_are_accepted_and_their_paths_are_mounted(
    environment: Mapping[str, str], container: Mapping[str, Any]
) -> None:
    settings = load([], environment)
    assert settings.trusted_keys is not None
    assert settings.audit_log is not None
    mounts = [Path(one["mountPath"]) for one in container["volumeMounts"]] + [Path("/mnt/models")]
    for path in (value for value in environment.values() if value.startswith("/")):
        assert any(Path(path).is_relative_to(mount) for mount in mounts), path


def test_manifests_pass_the_schema_of_kubernetes() -> None:
    for document in documents(KUBERNETES):
        kubernetes_validate.validate(document, "1.34", strict=True)
    broken = of_kind("Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_pod_has_no_rights_it_does_not_need() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    rights = container["securityContext"]
    assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    writable = [one["name"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["audit"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_server_is_given_longer_to_stop_than_it_takes_where_every_disk_hangs() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    service = documents(DEPLOY / "compose.yaml")[0]["services"]["server"]
    unit = (DEPLOY / "systemd" / "triage-server.service").read_text()
    given = {
        pod["terminationGracePeriodSeconds"],
        int(service["stop_grace_period"].removesuffix("s")),
        int(unit.partition("TimeoutStopSec=")[2].split()[0]),
    }
    # Cases under way; one audit line of a delivery, which may outlast the drain; the page; the last lines.
    drain = load(["--bundle", "b"], {}).drain_timeout_s
    longest = (
        drain
        + max(dispatcher._DRAIN_S, audit_log.DEFAULT_TIMEOUT_S)
        + database_threads._SHUTDOWN_S
        + audit_log.DEFAULT_TIMEOUT_S
    )
    assert min(given) > longest


def test_probes_ask_paths_that_are_open(make_app: Any, ask: Any) -> None:
    container = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    app = make_app()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert ask(app, "GET", container[probe]["httpGet"]["path"]).status_code == 200


def test_kserve_asks_by_the_open_protocol(make_app: Any, ask: Any) -> None:
    runtime = of_kind("ServingRuntime", DEPLOY / "kubernetes" / "kserve.yaml")["spec"]
    container = runtime["containers"][0]
    assert (container["name"], runtime["protocolVersions"]) == ("kserve-container", ["v2"])
    paths = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
    assert paths == ["/v2/health/live", "/v2/health/ready"]
    app = make_app()
    assert [ask(app, "GET", path).status_code for path in paths] == [200, 200]
    predictor = of_kind("InferenceService", DEPLOY / "kubernetes" / "kserve.yaml")["spec"]["predictor"]
    assert predictor["model"]["runtime"] == "triage-server"
    assert predictor["maxReplicas"] == 1


def test_user_of_the_server_may_write_the_volume_of_its_audit_log() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert pod["fsGroup"] == pod["runAsGroup"]
    kserve = DEPLOY / "kubernetes" / "kserve.yaml"
    runtime = of_kind("ServingRuntime", kserve)["spec"]["containers"][0]["securityContext"]
    predictor = of_kind("InferenceService", kserve)["spec"]["predictor"]
    assert predictor["securityContext"]["fsGroup"] == runtime["runAsGroup"] == runtime["runAsUser"]
    compose = documents(DEPLOY / "compose.yaml")[0]
    service, named = compose["services"]["server"], compose["volumes"]
    places = [volume.split(":")[1] for volume in service["volumes"] if volume.split(":")[0] in named]
    user, group = service["user"].split(":")
    made = f"RUN install --directory --owner={user} --group={group} --mode=0700 {' '.join(places)}\n"
    assert made in stage(2)  # a volume of Docker's takes owner and mode from the image
    assert f"USER {user}:{group}\n" in stage(2)


def test_kserve_takes_from_the_container_what_the_deployment_takes() -> None:
    """As a namespace that enforces "restricted" asks."""
    kserve = DEPLOY / "kubernetes" / "kserve.yaml"
    runtime = of_kind("ServingRuntime", kserve)["spec"]["containers"][0]["securityContext"]
    predictor = of_kind("InferenceService", kserve)["spec"]["predictor"]
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {**container["securityContext"], **pod["securityContext"]}.items() <= {
        **runtime,
        **predictor["securityContext"],
    }.items()
    assert predictor["automountServiceAccountToken"] is False


def stage(number: int) -> str:
    return re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[number]


def test_image_is_built_of_what_is_here_and_runs_as_nobody_in_particular() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in re.findall(r"^COPY (?!--from)(.*)$", stage(1), re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
            assert f"!{name}" in kept
    assert '--constraint constraints.txt ".[${EXTRAS:-serve}]"' in stage(1)
    last = stage(2)
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", last, re.MULTILINE)[1])  # type: ignore[index]
    assert entry[0] in project["scripts"]
    asked = json.loads(re.search(r"HEALTHCHECK .* CMD (.*)$", last, re.MULTILINE)[1])  # type: ignore[index]
    assert asked == ["python", "-m", "triage_server.health"]
    assert project["license"] in last
    tag = documents(DEPLOY / "compose.yaml")[0]["services"]["server"]["image"]
    assert tag.endswith(f":{project['version']}")


def told_apart(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Names of metrics and of the labels that stand in braces behind them."""
    for name, _, braces in re.findall(r"\b((?:triage|process)_[a-z_]+)(\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))


def watched() -> dict[str, set[str]]:
    """Every metric that an alert or a panel asks for, with the labels it is asked by."""
    rules = documents(DEPLOY / "prometheus" / "alerts.yml")[0]["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in panels for target in panel["targets"]]
    found: dict[str, set[str]] = {}
    for expression in asked:
        for name, labels in told_apart(expression):
            found.setdefault(name, set()).update(labels)
    return found


def test_every_metric_that_is_watched_is_one_that_a_server_tells(
    start: Any, tiny_bundle: Path, tmp_path: Path, draw: Any
) -> None:
    shadow = tiny.make(tmp_path / "shadow", threshold=0.4)
    optional = {
        "TRIAGE_SHADOW_BUNDLES": str(shadow.folder),
        "TRIAGE_READING_QUEUE": str(tmp_path / "queue.sqlite"),
    }
    with start(tiny_bundle, tmp_path, **optional) as server:
        httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers={"Content-Type": "image/jpeg"})
        httpx_60s.post(f"{server.url}/v1/triage", content=b"x", headers={"Content-Type": "image/jpeg"})
        page = httpx_60s.get(f"{server.url}/metrics").text
        assert server.stop() == 0
    told: dict[str, set[str]] = {}
    for name, _, braces in re.findall(r"^(\w+)(\{([^}]*)\})? ", page, re.MULTILINE):
        told.setdefault(name, set()).update(re.findall(r'(\w+)="', braces))
    asked = watched()
    assert len(asked) > 10
    assert {name: labels - {"job", "instance"} - told.get(name, set()) for name, labels in asked.items()} == {
        name: set() for name in asked
    }
    assert asked.keys() <= told.keys()


def test_alerts_say_what_their_tests_expect_also_where_promtool_is_not() -> None:
    rules = documents(DEPLOY / "prometheus" / "alerts.yml")[0]["groups"][0]["rules"]
    said = {rule["alert"]: rule.get("annotations") for rule in rules}
    for test in documents(DEPLOY / "prometheus" / "alerts_test.yml")[0]["tests"]:
        for moment in test["alert_rule_test"]:
            for expected in moment["exp_alerts"]:
                assert expected["exp_annotations"] == said[moment["alertname"]]


def test_alerts_are_given_when_they_should_be() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not here: the alert rules were not tested; on Debian: make deploy-check")
    for words in (
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ):
        done = subprocess.run(
            [promtool, *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_unit_is_understood_by_systemd_and_exposes_little(tmp_path: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not here: the unit was not verified")
    unit = (DEPLOY / "systemd" / "triage-server.service").read_text(encoding="utf-8")
    copy = tmp_path / "triage-server.service"
    copy.write_text(unit.replace("/opt/triage/bin/triage-server", "/bin/true"), encoding="utf-8")
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = [analyze, "security", "--offline=true", "--threshold=20", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:]  # exposure at most 2.0 of 10


RESOURCES_DENIED = "SystemCallFilter=~@privileged @resources\nSystemCallErrorNumber=EPERM\n"


@pytest.mark.parametrize("stricter", [None, RESOURCES_DENIED], ids=["unit", "without priorities"])
def test_server_answers_under_the_calls_that_the_unit_leaves_it(
    stricter: str | None, start: Any, tiny_bundle: Path, tmp_path: Path, draw: Any
) -> None:
    unit = tmp_path / "triage-server.service"
    unit.write_text(
        stricter or (DEPLOY / "systemd" / unit.name).read_text(encoding="utf-8"), encoding="utf-8"
    )
    under = [sys.executable, ROOT / "tests" / "confined.py", unit]
    if subprocess.run([*under, "/bin/true"], check=False).returncode == NOT_HERE:
        pytest.skip("this kernel sets no seccomp filter: nothing was tried under that of the unit")
    with start(tiny_bundle, tmp_path, under=under) as server:
        answer = httpx_60s.post(
            f"{server.url}/v1/triage", content=draw(), headers={"Content-Type": "image/jpeg"}
        )
        assert answer.status_code == 200
        assert server.stop() == 0
