"""``make image-check``: build the image, run it by compose.yaml and the Kubernetes manifest, ask it cases.

python tests/image_check.py [--engine NAME] [--compose COMMAND] [--python-image NAME] [--build=OPTION ...]

As root on Linux, since keys change their group as docs/deploying.md says. With docker, ``docker compose`` is
the default. The manifest is tried with podman alone, whose ``kube play`` runs the pod of a Deployment, but no
probe over TLS, Service or NetworkPolicy: that is no cluster. Port 8443 must be free.

Without a registry, Debian makes a base image:

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm base
    ln -s python3 base/usr/bin/python
    tar -C base -c . | podman import - localhost/python:3.11-bookworm
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

import tiny_bundle
from triage_client import Client, RefusedError, Triaged

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "serve" / "deploy"
IMAGE = "triage-server:0.1.0"
USER = 10001
ADDRESS = "https://127.0.0.1:8443"
_PATIENCE_S = 120


def main() -> None:
    """Each step prints a line; the first that fails ends the check with its output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="podman", help="docker or podman (default)")
    parser.add_argument("--compose", help="default: podman-compose, or docker compose")
    parser.add_argument("--python-image", default="docker.io/library/python:3.11-slim-bookworm")
    parser.add_argument("--build", action="append", default=[], help="one more option for the engine's build")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run it as root: files for the container change their group")
    engine = Engine(arguments.engine)
    compose = shlex.split(
        arguments.compose or {"podman": "podman-compose"}.get(engine.name, f"{engine.name} compose")
    )
    build(engine, arguments.python_image, arguments.build)
    look_inside(engine)
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name))
        with composed(engine, compose, site) as container:
            use(engine, container, site, renewable=True)
        if engine.name == "podman":
            with played(engine, site) as container:
                use(engine, container, site, renewable=False)
        else:
            print("NOT TRIED: the Kubernetes manifest, which podman alone can play")


class Engine:
    """A container engine's command line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        """What the command prints.

        Args:
            arguments: of the command.
            fails: whether it must fail.
        """
        return told([self.name, *arguments], fails=fails)


def told(command: Sequence[str], *, fails: bool = False, folder: Path | None = None) -> str:
    """Standard output of a command that must succeed, or of one that must fail both its outputs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError:
        sys.exit(f"{command[0]}: not found")
    if (done.returncode != 0) != fails:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if fails else "")


def agreed(what: str, is_so: bool, found: object = "") -> None:
    """Print what was found to be so, or stop."""
    if not is_so:
        sys.exit(f"NOT SO: {what} {found}")
    print(f"ok  {what}{f' ({found})' if found != '' else ''}", flush=True)


def build(engine: Engine, python_image: str, options: Sequence[str]) -> None:
    """The image of the Dockerfile, from this checkout."""
    began = time.monotonic()
    base = f"--build-arg=PYTHON_IMAGE={python_image}"
    engine("build", *options, base, f"--file={DEPLOY / 'Dockerfile'}", f"--tag={IMAGE}", str(ROOT))
    megabytes = int(engine("image", "inspect", "--format={{.Size}}", IMAGE)) / 1e6
    base_mb = int(engine("image", "inspect", "--format={{.Size}}", python_image)) / 1e6
    agreed(
        "built",
        True,
        f"{megabytes:.0f} MB, {base_mb:.0f} of them the base; {time.monotonic() - began:.0f} s",
    )


def look_inside(engine: Engine) -> None:
    """What the image is, before it serves anything."""
    about = json.loads(engine("image", "inspect", IMAGE))[0]["Config"]
    agreed("runs as its own user", about["User"] == f"{USER}:{USER}", about["User"])
    run = ("run", "--rm", "--network=none", "--read-only")
    found = engine(*run, "--entrypoint=python", IMAGE, "-c", _FOUND).split()
    agreed("has onnxruntime, and neither torch nor pip", found == ["onnxruntime"], *found)
    said = engine(*run, "-e", "TRIAGE_HOST=0.0.0.0", IMAGE, "--bundle", "/nowhere", fails=True)
    agreed("without keys and TLS it does not listen, and says why", "Traceback" not in said, said.strip())
    said = engine(*run, "-e", "TRIAGE_PROT=1", IMAGE, "--bundle", "/nowhere", fails=True)
    agreed("refuses a variable that it does not know", "TRIAGE_PROT" in said)


_FOUND = "import importlib.util as u; print(*filter(u.find_spec, ('onnxruntime', 'torch', 'pip')))"


class Site:
    """A clinic's folder beside compose.yaml, made by the commands of docs/deploying.md."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)  # the container's user reads through it
        (folder / "compose.yaml").write_bytes((DEPLOY / "compose.yaml").read_bytes())
        for name in ("bundles", "trusted", "keys", "tls"):
            (folder / name).mkdir()
        tiny_bundle.make(folder / "bundles" / "2026-10")
        self._run("lesion-triage", "keygen", "maker")
        (folder / "maker.pub.pem").rename(folder / "trusted" / "maker.pub.pem")
        self._run("lesion-triage", "sign", "bundles/2026-10", "--key", "maker.pem")
        link = ("--link", "bundles/served", "--trusted", "trusted")
        self._run("triage-server", "bundles", "activate", "bundles/2026-10", *link)
        self.key = self._run("triage-server", "keys", "new", "clinic-a", "--file", "keys/keys").split()[-1]
        self.renew_certificate()
        os.chown(folder / "keys" / "keys", -1, USER)
        (folder / "keys" / "keys").chmod(0o640)

    def renew_certificate(self) -> None:
        """A new pair in the place of the old one."""
        subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        pair = ("-keyout", "tls/tls.key", "-out", "tls/tls.crt")
        self._run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *pair)
        os.chown(self.folder / "tls" / "tls.key", -1, USER)
        (self.folder / "tls" / "tls.key").chmod(0o640)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "tls" / "tls.crt"))

    def _run(self, *command: str) -> str:
        program = Path(sys.executable).with_name(command[0])
        return told([str(program) if program.exists() else command[0], *command[1:]], folder=self.folder)


@contextmanager
def composed(engine: Engine, compose: Sequence[str], site: Site) -> Iterator[str]:
    """The server of compose.yaml, under a project of its own: another one's volumes are not touched."""
    project = f"triage-check-{os.getpid()}"
    command = [*compose, "-p", project, "-f", str(site.folder / "compose.yaml")]
    try:
        told([*command, "up", "--detach", "--no-build", "server"], folder=site.folder)
        label = f"label=com.docker.compose.project={project}"
        container = engine("ps", "--all", "--quiet", "--filter", label).strip()
        print(f"--  compose.yaml: {container}")
        yield container
    finally:
        told([*command, "down", "--volumes"], folder=site.folder)


@contextmanager
def played(engine: Engine, site: Site) -> Iterator[str]:
    """The Deployment of the Kubernetes manifest as a pod, with the claims, keys and secrets that it expects.

    Secrets lie on volumes, with the group and mode that Kubernetes gives them by ``fsGroup`` and
    ``defaultMode``: podman 4.3 knows neither and mounts them in base64.
    """
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "triage-server.yaml").read_text()))
    deployment = next(one for one in documents if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    container["image"], container["imagePullPolicy"] = f"localhost/{IMAGE}", "Never"
    container["ports"][0]["hostPort"] = 8443
    volumes = {"triage-bundles": [site.folder / "bundles"]}
    secrets = {"triage-api-keys": ["keys/keys"], "triage-tls": ["tls/tls.crt", "tls/tls.key"]}
    for volume in pod["volumes"]:
        if secret := volume.pop("secret", None):
            name = secret["secretName"]
            volumes[name] = [site.folder / file for file in secrets[name]]
            volume["persistentVolumeClaim"] = {"claimName": name}
        if "configMap" in volume:
            volume["configMap"]["optional"] = False  # the default, without which podman 4.3 panics
    public = site.folder / "trusted" / "maker.pub.pem"
    trusted = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "triage-trusted-keys"},
        "data": {public.name: public.read_text()},
    }
    file = site.folder / "play.yaml"
    file.write_text(yaml.safe_dump_all([trusted, *documents]))
    try:
        for name, contents in volumes.items():
            engine("volume", "create", name)
            place = Path(engine("volume", "inspect", "--format={{.Mountpoint}}", name).strip())
            fill(place, contents)
        engine("kube", "play", str(file))
        found = engine("ps", "--all", "--format={{.Names}}").split()
        name = next(one for one in found if one.startswith("triage-server") and one.endswith("-server"))
        print(f"--  kubernetes/triage-server.yaml: {name}")
        yield name
    finally:
        subprocess.run([engine.name, "kube", "down", str(file)], capture_output=True, check=False)
        for name in (*volumes, "triage-audit", "triage-trusted-keys"):
            subprocess.run([engine.name, "volume", "rm", "--force", name], capture_output=True, check=False)


def fill(place: Path, contents: Sequence[Path]) -> None:
    """Put files, or all in a folder, on a volume of which the server's group may read all."""
    for content in contents:
        if content.is_dir():
            shutil.copytree(content, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(content, place)
    for path in (place, *place.rglob("*")):
        os.chown(path, -1, USER, follow_symlinks=False)
    place.chmod(0o2770)


_DISPOSITIONS = ["needs_in_person", "below_threshold", "ungradable"]


def use(engine: Engine, container: str, site: Site, *, renewable: bool) -> None:
    """What platform and operator do with a server in a container, to its end.

    Args:
        engine: that runs it.
        container: its name.
        site: whose key and certificate it has.
        renewable: whether the container sees the site's folder itself, and not a copy of its files.
    """
    began = time.monotonic()
    wait_until_ready(engine, container, site)
    agreed("it is ready", True, f"{time.monotonic() - began:.1f} s after the command that starts it")
    engine("exec", container, "python", "-m", "triage_server.health")
    agreed("the health check agrees", True)
    agreed("the root file system is read-only", "ead-only" in _refused_write(engine, container))
    about = engine("exec", container, "cat", "/proc/1/status")
    status = dict(line.split(":\t", 1) for line in about.splitlines() if ":\t" in line)
    agreed("it is not root", status["Uid"].split() == [str(USER)] * 4)
    agreed("it has no capability", int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0)
    agreed("it can gain no privilege", status["NoNewPrivs"] == "1")
    dispositions = [ask(site, kind).answer.disposition for kind in ("referred", "below", "black")]
    agreed("cases are answered", dispositions == _DISPOSITIONS, ", ".join(dispositions))
    agreed("a wrong key is refused", _refusal(site) == httpx.codes.UNAUTHORIZED)
    if renewable:
        site.renew_certificate()
        engine("kill", "--signal=HUP", container)
        wait_until_ready(engine, container, site)
        agreed("a renewed certificate is used after SIGHUP", True)
    said = engine("exec", container, "triage-server", "audit", "verify", "/var/lib/triage/audit")
    agreed("the audit log verifies", True, said.strip())
    began = time.monotonic()
    engine("stop", "--time=60", container)
    ended = json.loads(engine("inspect", container))[0]["State"]["ExitCode"]
    agreed("it stops of its own", ended == 0, f"exit status {ended}, {time.monotonic() - began:.1f} s")


def wait_until_ready(engine: Engine, container: str, site: Site) -> None:
    """Until the server answers with the certificate that the site has now."""
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE_S:
        try:
            if httpx.get(f"{ADDRESS}/health/ready", verify=site.trust()).is_success:
                return
        except httpx.TransportError:
            state = json.loads(engine("inspect", container))[0]["State"]
            if not state["Running"]:
                break
        time.sleep(0.1)
    state = json.loads(engine("inspect", container))[0]["State"]
    logs = subprocess.run([engine.name, "logs", container], capture_output=True, text=True, check=False)
    sys.exit(f"NOT SO: ready in {_PATIENCE_S} s\n{json.dumps(state, indent=1)}\n{logs.stdout}{logs.stderr}")


def ask(site: Site, kind: tiny_bundle.Kind, key: str | None = None) -> Triaged:
    """The answer to a case of one drawn photograph, sent by the client over TLS."""
    with Client(ADDRESS, key or site.key, verify=site.trust()) as client:
        return client.triage([tiny_bundle.picture_bytes(kind, "JPEG", (640, 480))])


def _refusal(site: Site) -> int:
    try:
        ask(site, "referred", key="0" * len(site.key))
    except RefusedError as error:
        return error.status
    return httpx.codes.OK


def _refused_write(engine: Engine, container: str) -> str:
    return engine("exec", container, "python", "-c", "open('/opt/triage/x', 'w')", fails=True)


if __name__ == "__main__":
    main()
