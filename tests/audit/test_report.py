from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from lesion_triage.audit import checks, report
from lesion_triage.audit.findings import Finding, Report, Verdict, apply_acceptances
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit
from lesion_triage.errors import ManifestError

SPEC = PixelSpec(size_px=64)
CONFIG = Audit(pictures=120)


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory):
    known, splits, root = drawn
    data = checks.AuditInput(known, splits, root, SPEC)
    found, seen = checks.audit_data(data, CONFIG)
    folder = tmp_path_factory.mktemp("report") / "audit"
    report.write(folder, found, CONFIG, seen, known)
    return folder, found, data


def test_the_page_loads_nothing_from_anywhere_and_has_no_script(written):
    page = (written[0] / "audit.html").read_text()
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_every_figure_has_an_alternative_text_and_lies_beside_the_page_as_a_file(written):
    folder, _, _ = written
    page = (folder / "audit.html").read_text()
    images = re.findall(r"<img [^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    assert {path.stem for path in (folder / "figures").iterdir()} == set(
        re.findall(r'id="figure-(\w+)"', page)
    )


def test_every_finding_stands_on_the_page_with_its_verdict_and_its_reason(written):
    folder, found, _ = written
    page = (folder / "audit.html").read_text()
    for finding in found.findings:
        assert f'id="{finding.code}"' in page
    assert json.loads((folder / "audit.json").read_text())["verdict"] == found.verdict


def test_page_and_json_name_no_picture_lesion_or_patient(written):
    folder, _, data = written
    for name in ("audit.html", "audit.json"):
        text = (folder / name).read_text()
        for record in data.manifest.records:
            assert record.image_id not in text
            assert f'"{record.lesion_id}"' not in text
            assert f">{record.lesion_id}<" not in text


def test_photographs_stand_only_in_the_copy_that_warns_of_them(written, tmp_path):
    folder, _, data = written
    page = report.write_with_pictures(tmp_path / "local.html", folder, data, CONFIG)
    local, plain = page.read_text(), (folder / "audit.html").read_text()
    assert "photographs of people" in local
    assert "photographs of people" not in plain
    assert local.count("<img") > plain.count("<img")


def test_a_copy_with_photographs_takes_opened_pictures(drawn, tmp_path):
    known, splits, root = drawn
    data = checks.AuditInput(known, splits, root, SPEC)
    found, seen = checks.audit_data(data, Audit(pictures=0))
    report.write(tmp_path / "audit", found, Audit(pictures=0), seen, known)
    with pytest.raises(ManifestError, match=r"audit\.pictures"):
        report.write_with_pictures(tmp_path / "local.html", tmp_path / "audit", data, CONFIG)


def test_an_accepted_failure_shows_its_reason_escaped(tmp_path, drawn):
    failed = Finding("source_shortcut", Verdict.FAIL, "It tells.", subjects=("<north>",))
    config = Audit(accept={"source_shortcut": "we know of <north> & show it apart"})
    facts = {
        "photographs": 1,
        "rows_compared": 1,
        "positive_rows_compared": 1,
        "pictures_opened": 0,
        "manifest_sha256": "a" * 64,
        "synthetic": False,
        "citation": [],
        "with_model": False,
    }
    found = Report(apply_acceptances([failed], config), (), facts)
    page = report.write(tmp_path, found, config, None, drawn[0]).read_text()
    assert "we know of &lt;north&gt; &amp; show it apart" in page
    assert "accepted on purpose" in page


@pytest.mark.parametrize(
    "damage",
    ["", "image_id\nimage-1\n", 'image_id,hair\n"image-1', "\xff", "gone,True,True,True,True,True,,\n"],
)
def test_a_table_of_pictures_that_no_audit_wrote_is_refused_in_a_sentence(written, tmp_path, damage):
    folder, found, data = written
    report.write(tmp_path / "audit", found, CONFIG, None, data.manifest)
    head = (folder / "pictures.csv").read_text().splitlines()[0]
    text = f"{head}\n{damage}" if damage.startswith("gone") else damage
    (tmp_path / "audit" / "pictures.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError, match=r"pictures\.csv: .*audit again"):
        report.write_with_pictures(tmp_path / "local.html", tmp_path / "audit", data, CONFIG)
    assert not (tmp_path / "local.html").exists()


def test_a_name_with_a_line_separator_is_one_name(drawn, tmp_path):
    """A line ends in more ways for ``str.splitlines`` than in a table."""
    known, splits, root = drawn
    odd = {one.image_id: f"{one.image_id}\u2028\x85\x0b\n" for one in known.records}
    known = replace(known, records=tuple(replace(one, image_id=odd[one.image_id]) for one in known.records))
    splits = replace(splits, assignment={odd[one]: name for one, name in splits.assignment.items()})
    data = checks.AuditInput(known, splits, root, SPEC)
    found, seen = checks.audit_data(data, CONFIG)
    assert seen.shows("hair").any()  # else nobody is named
    report.write(tmp_path / "audit", found, CONFIG, seen, known)
    page = report.write_with_pictures(tmp_path / "local.html", tmp_path / "audit", data, CONFIG)
    assert page.read_text().count("Picture ") >= 1


def test_a_source_and_a_column_may_have_any_name(made, tmp_path):
    """A dollar sign begins a formula in a figure, and no font has every script: neither stops an audit."""
    known, splits = made(
        400, source=lambda random, positive: str(random.choice(["a$b$c", r"$\foo$", "two\nlines", "皮肤科"]))
    )
    lines = "".join(f"{one.path},{'' if n % 3 else 'yes'}\n" for n, one in enumerate(known.records))
    (tmp_path / "cases.csv").write_text(f"image,price in $ or $\\\\n{lines}")
    tables = Audit(pictures=0)
    found, _ = checks.audit_data(checks.AuditInput(known, splits, tmp_path, SPEC), tables)
    page = report.write(tmp_path / "audit", found, tables, None, known).read_text()
    assert "$\\foo$" in page
    assert 'id="figure-sources"' in page
    assert 'id="figure-gaps"' in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [(523.4, "523"), (12345.6, "12,346"), (99.5, "99.500"), (1.0, "1"), (0.00002, "2e-05")],
)
def test_a_large_number_is_shown_without_an_exponent(value, shown):
    assert report._cell(value) == shown


def test_names_stand_beside_the_audit_of_the_data_alone(written, tmp_path):
    """An audit of the model reads the former report back, which names nobody."""
    folder, found, data = written
    assert (folder / "names.csv").is_file()
    again = replace(report.read(folder), facts={**found.facts, "with_model": True, "model_sha256": "a" * 64})
    report.write(tmp_path / "audit_with_model", again, CONFIG, None, data.manifest)
    assert not (tmp_path / "audit_with_model" / "names.csv").exists()


def test_an_incomplete_report_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no complete report"):
        report.read(tmp_path)
    (tmp_path / "audit.json").write_text('{"format": 0}')
    with pytest.raises(ManifestError, match="not a report of this version"):
        report.read(tmp_path)
