from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from scipy.stats import binom

import docs_shell
from lesion_triage import cli, errors
from lesion_triage.bundle import calibration, certificate, red_flags, schema, signing
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.calibrate import pooling
from lesion_triage.config import Config, Part
from lesion_triage.data.sources import folder
from triage_server.problems import PROBLEM_TYPES
from triage_server.settings import Settings, variables

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_TOP = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "data/README.md",
    "experiments/README.md",
    "experiments/BUNDLES.md",
    "experiments/LOG.md",
)
PAGES = [
    *(ROOT / name for name in _TOP),
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("experiments/*/README.md")),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIRED = "required"


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows_of(page: str) -> dict[str, list[str]]:
    """Table rows of a page, by the name in backticks in their first cell."""
    found: dict[str, list[str]] = {}
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        name = re.fullmatch(r"`([^`]+)`", cells[0])
        if line.startswith("|") and name:
            found[name[1]] = cells
    return found


def keys_of(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def written(default: Any) -> str:
    """A default as a person writes it in YAML."""
    return default if isinstance(default, str) and default else json.dumps(default)


_SMALLEST = Config.model_validate({"name": "try", "data": {"source": "synthetic"}})
_GROUP = dict(keys_of(certificate.GroupBy(by="sex"), "calibrate.groups[]."))
_PART = dict(keys_of(Part(source="folder"), "data.mixture[]."))
_MUST = ("name", "data.source", "data.mixture[].source", "calibrate.groups[].by")
KEYS = {
    **dict(keys_of(_SMALLEST)),
    **_PART,
    **_GROUP,
    **dict.fromkeys(_MUST, REQUIRED),
}


@pytest.mark.parametrize(("key", "default"), KEYS.items(), ids=KEYS)
def test_every_configuration_key_is_documented_with_its_default(key: str, default: Any) -> None:
    rows = rows_of("configuration.md")
    assert key in rows, f"docs/configuration.md has no row for `{key}`"
    stated = rows[key][2]
    expected = REQUIRED if default is REQUIRED else f"`{written(default)}`"
    assert stated == expected, f"docs/configuration.md states another default for `{key}`"


def test_every_column_of_a_table_of_one_s_own_is_documented() -> None:
    page = (ROOT / "data/README.md").read_text(encoding="utf-8")
    section = page.partition("(`source: folder`)")[2].partition("\n## ")[0]
    assert [name for name in (*folder.REQUIRED, *folder.OPTIONAL) if f"`{name}`" not in section] == []


def test_no_configuration_key_is_documented_that_does_not_exist() -> None:
    known = {*KEYS, *variables()}
    assert sorted(rows_of("configuration.md").keys() - known) == []


@pytest.mark.parametrize(("variable", "field"), variables().items(), ids=variables())
def test_every_server_setting_is_documented_with_its_default(variable: str, field: str) -> None:
    setting = Settings.model_fields[field]
    if setting.is_required():
        expected = REQUIRED
    elif variable == "TRIAGE_THREADS":
        expected = "usable processors"
    elif setting.default is None or setting.default == ():
        expected = "none"
    else:
        expected = f"`{written(setting.default)}`"
    assert rows_of("configuration.md")[variable][2] == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_points_at_something_that_exists(page: Path) -> None:
    broken = [target for target in relative_links(page) if not (page.parent / target).exists()]
    assert broken == []


def relative_links(page: Path) -> Iterator[str]:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)", prose):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z][a-z0-9+.-]*:", path):
            yield path


@pytest.mark.parametrize("record", sorted((DOCS / "adr").glob("[0-9]*.md")), ids=lambda record: record.stem)
def test_every_decision_record_is_in_the_index_and_has_its_three_parts(record: Path) -> None:
    assert f"({record.name})" in text_of("adr/README.md")
    text = record.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert text.startswith(f"# {int(record.name[:4])}. ")


ERRORS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.LesionTriageError)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_hangs_in_the_drawn_tree_where_it_hangs_in_the_code(error: type[Exception]) -> None:
    base = error.__bases__[0].__name__
    expected = None if error is errors.LesionTriageError else base
    assert drawn_tree().get(error.__name__, "not drawn") == expected


def test_no_error_is_drawn_that_does_not_exist() -> None:
    assert drawn_tree().keys() == {error.__name__ for error in ERRORS}


def drawn_tree() -> dict[str, str | None]:
    """Name to parent, read off the indentation in the docstring of ``errors``."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"[\s│├└─]*?(?=[A-Z])(\w+Error)\b", line):
            column = found.start(1)
            path = [step for step in path if step[0] < column]
            parents[found[1]] = path[-1][1] if path else None
            path.append((column, found[1]))
    return parents


def dependencies() -> set[str]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    wanted = [
        *project["dependencies"],
        *PROJECT["build-system"]["requires"],
        *(one for all_ in extras for one in all_),
    ]
    names = {re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in wanted}
    return names - {project["name"]}


@pytest.mark.parametrize("dependency", sorted(dependencies()))
def test_every_dependency_has_its_line(dependency: str) -> None:
    assert dependency in rows_of("dependencies.md")


def test_no_dependency_has_a_line_that_is_not_declared() -> None:
    assert sorted(rows_of("dependencies.md").keys() - dependencies()) == []


@pytest.mark.parametrize("code", [*schema.ReasonCode, *schema.Disposition, *PROBLEM_TYPES])
def test_every_code_that_a_client_may_meet_is_documented(code: str) -> None:
    assert f"`{code}`" in text_of("http-api.md")


def test_every_problem_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text_of("http-api.md"), re.MULTILINE)
    assert {code: int(status) for status, code in rows} == {
        code: int(kind.status) for code, kind in PROBLEM_TYPES.items()
    }


def audit_lines() -> Iterator[dict[str, str | None]]:
    """Field to text, if constant, of each line of the audit log that the server spells out."""
    for path in (ROOT / "serve" / "triage_server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                line = {
                    key.value: value.value if isinstance(value, ast.Constant) else None
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                }
                if "event" in line and "level" not in line:  # a level has a line of the ordinary log
                    yield line


def test_every_event_and_field_of_the_audit_log_that_the_server_spells_out_is_documented() -> None:
    section = text_of("operating.md").partition("\n## 4. ")[2].partition("\n## 5. ")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    documented = {name.strip("`") for cell in first_cells for name in cell.split(", ")}
    lines = list(audit_lines())
    events = {line["event"] for line in lines if line["event"]}
    assert {"opened", "closed", "swapped", "resumed", "torn"} <= events
    assert sorted(events.union(*lines) - documented) == []


def test_the_page_for_clients_names_no_condition_and_promises_nothing() -> None:
    words = r"(?<![a-z])(benign|malignan|cancer|melanom|diagnos|safe|healthy|clear)"
    prose = text_of("http-api.md").replace(english_catalogue().notice, "")
    assert re.findall(words, prose, re.IGNORECASE) == []


_ANSWERS = (
    schema.Answer,
    schema.ImageAnswer,
    schema.Reason,
    schema.Remark,
    schema.PresentFlag,
    History,
)
_DOCUMENTS = (
    schema.Header,
    schema.ModelFacts,
    schema.PixelSpec,
    schema.SealedFile,
    schema.Policy,
    schema.Grouping,
    calibration.PlattCalibrator,
    calibration.TemperatureCalibrator,
    calibration.BetaCalibrator,
    calibration.IsotonicCalibrator,
    calibration.VennAbersCalibrator,
    schema.QualityLimits,
    certificate.Certificate,
    certificate.GroupBy,
    certificate.GroupRow,
    certificate.Routes,
    certificate.Look,
    schema.SelfTest,
    schema.SelfTestCase,
    red_flags.RedFlags,
    red_flags.RedFlag,
    red_flags.Action,
    red_flags.Review,
    History,
    signing.Signature,
    pooling.Tally,
)


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda document: document.__name__)
def test_every_field_of_a_bundle_is_documented(document: type[BaseModel]) -> None:
    text = text_of("bundle-format.md")
    assert [name for name in document.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("document", _ANSWERS, ids=lambda document: document.__name__)
def test_every_field_that_a_client_sends_or_reads_is_documented(document: type[BaseModel]) -> None:
    text = text_of("http-api.md")
    assert [name for name in document.model_fields if f"`{name}`" not in text] == []


_CALIBRATORS = get_args(get_args(calibration.Calibrator)[0])


@pytest.mark.parametrize("kind", _CALIBRATORS, ids=lambda kind: kind.__name__)
def test_every_calibrator_is_documented_and_can_be_asked_for(kind: type[BaseModel]) -> None:
    assert kind in _DOCUMENTS
    assert f"`{kind.model_fields['kind'].default}`" in rows_of("configuration.md")["calibrate.calibrator"][1]


def commands_of(page: Path) -> list[str]:
    """Commands of this program in a page's shell blocks, one a line."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("lesion-triage ")]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands_of(page)],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_every_command_that_a_page_prints_is_one_that_the_program_takes(page: Path) -> None:
    for command in commands_of(page):
        words = docs_shell.split_words(command)[1:]
        try:
            cli.parser(words[0]).parse_args(words)
        except SystemExit:
            pytest.fail(f"the program refuses: {command}")


def test_printed_misses_are_the_largest_that_the_exact_binomial_allows() -> None:
    rows = [line.strip("| ").split(" | ") for line in text_of("certificate.md").splitlines()]
    printed = [(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].isdecimal()]
    assert len(printed) > 5
    for positives, misses in printed:
        below, above = binom.cdf([misses, misses + 1], positives, 0.05)
        assert below <= 0.05 < above


HAZARDS = re.split(r"^### ", text_of("hazards.md"), flags=re.MULTILINE)[1:]
NAMED_TEST = re.compile(r"`((?:[\w]+/)*test_\w+\.py)::(test_\w+)`")


@pytest.mark.parametrize("hazard", HAZARDS, ids=[hazard.partition("\n")[0] for hazard in HAZARDS])
def test_every_hazard_names_tests_that_exist_and_what_remains(hazard: str) -> None:
    assert re.search(r"^\*\*What the system does\.\*\* \w", hazard, re.MULTILINE)
    assert re.search(r"^\*\*What remains\.\*\* \w", hazard, re.MULTILINE)
    named = NAMED_TEST.findall(hazard)
    assert named
    assert hazard.count("::") == len(named), "a test is not written as it is read here"
    for file, function in named:
        defined = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
        assert function in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, file


def test_hazards_are_numbered_without_a_gap() -> None:
    assert [hazard.split(maxsplit=1)[0] for hazard in HAZARDS] == [f"H{n + 1}" for n in range(len(HAZARDS))]
