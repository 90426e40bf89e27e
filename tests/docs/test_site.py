"""The site: built without a warning and without PyTorch, complete, and whole without a network."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import triage_client
from lesion_triage import cli, errors
from lesion_triage.calibrate import certificate
from lesion_triage.config import Config
from triage_server import commands
from triage_server.settings import variables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAVIGATION = yaml.safe_load((DOCS / "builder" / "navigation.yaml").read_text(encoding="utf-8"))
_WITHOUT = ("torch", "torchvision", "timm", "sklearn", "scipy", "mlflow", "lightning_fabric", "onnx")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` builds it, with what its environment lacks made unimportable."""
    out = tmp_path_factory.mktemp("site")
    script = DOCS / "builder" / "build.py"
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({_WITHOUT!r}))\n"
        f"sys.argv = ['build.py', '--out', {str(out)!r}]\n"
        f"sys.path.insert(0, {str(script.parent)!r})\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    built = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return out / "html"


def text_of(page: Path) -> str:
    return (
        re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")).replace("&gt;", ">").replace("&#x27;", "'")
    )


def test_every_page_stands_in_the_navigation_once() -> None:
    named = Counter(name for names in NAVIGATION.values() for name in names)
    ours = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert [name for name, times in named.items() if times > 1] == []
    assert sorted(ours - named.keys()) == [], "give it a place in docs/builder/navigation.yaml"
    pages = {name for name in named if "/" not in name}
    assert sorted(pages - ours) == [], "docs/builder/navigation.yaml names a page that is not there"


def test_the_navigation_has_the_four_kinds_of_pages() -> None:
    assert {"Tutorial", "How-to guides", "Reference", "Explanation"} <= NAVIGATION.keys()


class _Loads(HTMLParser):
    """Collects what a browser loads by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "link" and said.get("rel") in {"canonical", "next", "prev", "index", "search"}:
            return
        if tag in {"script", "link", "img", "iframe", "source", "video", "audio", "embed", "object"}:
            self.found += [said[name] for name in ("src", "href", "data", "srcset") if name in said]


def loads(site: Path) -> Iterator[tuple[Path, str]]:
    for page in site.rglob("*.html"):
        reader = _Loads()
        reader.feed(page.read_text(encoding="utf-8"))
        yield from ((page, address) for address in reader.found)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
        yield from ((sheet, one or other) for one, other in found)


@pytest.mark.pages
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    addresses = list(loads(site))
    assert len(addresses) > 100
    outside = re.compile(r"(?:[a-z+]+:)?//", re.IGNORECASE)
    assert [(page.name, address) for page, address in addresses if outside.match(address)] == []


@pytest.mark.pages
def test_every_local_file_that_a_page_loads_is_there(site: Path) -> None:
    for page, address in loads(site):
        path = re.split(r"[?#]", address)[0]
        if path and not path.startswith("data:"):
            assert (page.parent / path).exists(), f"{page}: {address}"


@pytest.mark.pages
def test_every_verb_and_every_subcommand_has_its_arguments_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "cli.html")
    described = {
        **{f"lesion-triage {name}": verb for name, verb in subparsers(cli.parser()).items()},
        **{f"triage-server {name}": parser for name, parser in subparsers(commands.parser()).items()},
    }
    assert len(described) == len(cli.VERBS) + len(commands.SUBCOMMANDS)
    for name, parser in described.items():
        section = re.split(r"\n(?:lesion-triage|triage-server) (?=\S+¶)", text.partition(f"{name}¶")[2])[0]
        assert sorted(option for option in options(parser) if option not in section) == [], name


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name of each subcommand to its parser."""
    return {
        name: choice
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, choice in action.choices.items()
    }


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a command and of its subcommands."""
    own = {option for action in parser._actions for option in action.option_strings}
    return own.union(*(options(inner) for inner in subparsers(parser).values())) - {"-h", "--help"}


@pytest.mark.pages
def test_every_error_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    names = [
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.LesionTriageError)
    ]
    assert [name for name in names if f'id="lesion_triage.errors.{name}"' not in text] == []


@pytest.mark.pages
def test_every_setting_and_every_section_of_the_configuration_is_in_the_reference(site: Path) -> None:
    settings = text_of(site / "reference" / "settings.html")
    assert [name for name in variables() if name not in settings] == []
    configuration = (site / "reference" / "api-config.html").read_text(encoding="utf-8")
    sections = {
        type(value).__name__
        for _, value in Config.model_validate({"name": "try", "data": {"source": "synthetic"}})
    }
    ours = vars(sys.modules[Config.__module__])
    wanted = [name for name in sections if name in ours and ours[name].__module__ == Config.__module__]
    assert len(wanted) > 5
    assert [name for name in wanted if f'id="lesion_triage.config.{name}"' not in configuration] == []


@pytest.mark.pages
def test_every_operation_of_the_server_is_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "http.html")
    description = json.loads(next(site.glob("_downloads/*/openapi.json")).read_text(encoding="utf-8"))
    operations = {
        f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods
    }
    assert {"POST /v1/triage", "GET /v1/certificate", "POST /fhir/$triage", "GET /cds-services"} <= operations
    assert sorted(operation for operation in operations if f"{operation}¶" not in text) == []


@pytest.mark.pages
def test_the_public_python_interface_is_in_the_reference(site: Path) -> None:
    client = (site / "reference" / "api-client.html").read_text(encoding="utf-8")
    bundle = (site / "reference" / "api-bundle.html").read_text(encoding="utf-8")
    assert [name for name in triage_client.__all__ if f'.{name}"' not in client + bundle] == []
    theorem = (site / "reference" / "api-certificate.html").read_text(encoding="utf-8")
    ours = [
        name
        for name, value in inspect.getmembers(certificate, inspect.isfunction)
        if value.__module__ == certificate.__name__ and not name.startswith("_")
    ]
    assert [name for name in ours if f'id="{certificate.__name__}.{name}"' not in theorem] == []
