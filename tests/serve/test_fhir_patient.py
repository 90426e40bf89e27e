"""Age and sex of a Patient: a child is never taken for an adult, and no birth date comes back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_bundle
from fhir_requests import outcome, resources, sent, years_ago
from histories import flag
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.scorer import Scorer
from sent_cases import JSON, as_fhir, as_hook, bundle, media, order, told
from triage_server.fhir_patient import complete_history
from triage_server.problems import RequestError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fhir.resources.R4B.patient import Patient

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
HOOK = "/cds-services/lesion-triage"
TODAY = date(2026, 3, 1)


def patient(name: str = "p1", **said: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, **said}


def completed(history: History = NO_HISTORY, **said: Any) -> History:
    return complete_history(history, [patient(**said)], TODAY)


def refusal(history: History = NO_HISTORY, *more: dict[str, Any], **said: Any) -> str:
    with pytest.raises(RequestError) as error:
        complete_history(history, [patient(**said), *more], TODAY)
    return str(error.value.placeholders["fields"])


@pytest.mark.parametrize(
    ("birth_date", "age"),
    [
        ("2010-03-01", 16),
        ("2010-03-02", 15),
        ("2010-02", 16),
        ("2010-03", 15),  # born on the 1st, it is 16
        ("2010", 15),
        ("2009", 16),
        ("2008-02-29", 18),
        ("2012-02-29", 14),
        ("2026-03-01", 0),
        ("2026-03-02", 0),  # where it is tomorrow already
        ("2026", 0),
        ("2026-03", 0),
        ("1905-03-02", 120),
        ("1905", 120),
    ],
)
def test_age_is_in_completed_years_and_the_youngest_that_the_date_allows(birth_date: str, age: int):
    assert completed(birthDate=birth_date).age_years == age


@given(born=st.dates(date(1907, 1, 1), date(2026, 2, 28)), length=st.sampled_from([4, 7, 10]))
def test_a_shorter_date_never_makes_older_and_never_more_than_a_year_younger(born: date, length: int):
    exact = completed(birthDate=born.isoformat()).age_years
    shorter = completed(birthDate=born.isoformat()[:length]).age_years
    assert exact is not None
    assert shorter is not None
    assert exact - 1 <= shorter <= exact
    assert born.replace(year=born.year + int(exact), day=min(born.day, 28)) <= TODAY


@pytest.mark.parametrize(
    "birth_date",
    [
        "2026-03-03",
        "2026-04",
        "2027",
        "1900-01-01",
        "1904",
        "0000",
        "2010-00-01",
        "2010-13",
        "2010-02-30",
        "2010-2-3",
        "2010-03-01T00:00:00Z",
        " 2010-03-01",
        "٢٠١٠-03-01",
        "01.03.2010",
        "",
        2010,
        None,
        ["2010-03-01"],
    ],
)
@pytest.mark.parametrize("answered", [NO_HISTORY, History(age_years=15)], ids=["open", "answered"])
def test_a_birth_date_that_is_none_is_refused_by_name_and_never_quoted(birth_date: Any, answered: History):
    said = refusal(answered, birthDate=birth_date)
    assert said.startswith("Patient.birthDate")
    assert not birth_date or str(birth_date) not in said


@pytest.mark.parametrize(
    ("gender", "sex"), [("female", "female"), ("male", "male"), ("other", "other"), ("unknown", None)]
)
def test_gender_is_the_sex_and_unknown_leaves_it_open(gender: str, sex: str | None):
    assert completed(gender=gender) == History(sex=sex)


@pytest.mark.parametrize("gender", ["Female", "m", "", None, 1, ["male"]])
def test_a_gender_that_r4_does_not_have_is_refused(gender: Any):
    assert refusal(gender=gender).startswith("Patient.gender")


def test_an_answer_counts_more_than_the_patient():
    answered = History(sex="kvinna", age_years=15.5, bleeding=True)
    assert completed(answered, gender="female", birthDate="2010-02-01") == answered
    assert completed(History(sex="other"), gender="male").sex == "other"
    assert completed(History(sex="female"), gender="other").sex == "female"


@pytest.mark.parametrize(
    ("age", "birth_date", "agree"),
    [
        (15, "2010-02-01", True),
        (17, "2010-02-01", True),
        (14.9, "2010-02-01", False),
        (17.1, "2010-02-01", False),
        (14, "2010", True),  # 15 or 16
        (17, "2010", True),
        (18, "2010", False),
        (40, "2010-02-01", False),
    ],
)
def test_an_age_more_than_a_year_from_the_birth_date_is_refused(age: float, birth_date: str, agree: bool):
    answered = History(age_years=age)
    if agree:
        assert completed(answered, birthDate=birth_date) == answered
    else:
        assert refusal(answered, birthDate=birth_date).startswith("age_years, with two different answers")


def test_another_sex_is_refused():
    for sex in ("male", "Male "):
        assert refusal(History(sex=sex), gender="female").startswith("sex, with two different answers")


def test_two_versions_of_a_patient_must_agree():
    older = patient(gender="female", birthDate="2010-03")
    assert complete_history(NO_HISTORY, [patient(gender="female"), older, older], TODAY).age_years == 15
    assert refusal(NO_HISTORY, older, gender="male").startswith("Patient.gender")
    assert refusal(NO_HISTORY, older, birthDate="2010-03-01").startswith("Patient.birthDate")


@pytest.mark.parametrize(
    "said",
    [
        {"active": False},
        {"deceasedBoolean": True},
        {"deceasedDateTime": "2020-01-01"},
        {"link": [{"type": "replaced-by", "other": {"reference": "Patient/2"}}]},
        {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]},
    ],
    ids=lambda said: next(iter(said)),
)
def test_a_patient_with_a_modifier_is_refused(said: dict[str, Any]):
    Patient.model_validate(patient(**said))
    text = refusal(**said)
    assert "Patient." in text or "modifierExtension" in text
    assert "2020" not in text


def test_a_living_patient_in_use_is_not_refused():
    said: dict[str, Any] = {
        "active": True,
        "deceasedBoolean": False,
        "link": [{"type": "seealso", "other": {"reference": "Patient/2"}}],
    }
    Patient.model_validate(patient(**said))
    assert completed(**said) == NO_HISTORY


# In requests


@pytest.fixture
def flagged(make_app: MakeApp, tmp_path: Path) -> Any:
    """An application that refers children."""
    flags = RedFlags(flags=(flag({"field": "age_years", "at_most": 15}, "child"),))
    return make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", red_flags=flags)))


def is_referred(response: httpx.Response) -> bool:
    return resources(response)["Task"][0]["code"]["coding"][0]["code"] == "needs_in_person"


def with_resources(picture: bytes, *more: dict[str, Any], **history: Any) -> dict[str, Any]:
    tree = as_fhir(picture, **history)
    tree["entry"] += [{"resource": one} for one in more]
    return tree


@pytest.mark.parametrize(("years", "referred"), [(15, True), (16, False)])
def test_the_flag_for_a_child_fires_on_the_birth_date_of_the_subject(
    years: int, referred: bool, ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    picture = picture_bytes("below", "JPEG")
    born = patient(birthDate=years_ago(years))
    Patient.model_validate(born)
    assert is_referred(sent(ask, flagged, with_resources(picture, born))) is referred
    contained = order("Media/m0", contained=[patient("p", birthDate=years_ago(years))])
    contained["subject"] = {"reference": "#p"}
    assert is_referred(sent(ask, flagged, bundle(contained, media(picture, "m0")))) is referred
    named = media(picture, "m0", subject={"reference": "Patient/p1/_history/2"})
    newer = {**born, "meta": {"versionId": "3"}}
    assert is_referred(sent(ask, flagged, bundle(named, newer))) is referred


@pytest.mark.parametrize(("years", "indicator"), [(15, "warning"), (16, "info")])
@pytest.mark.parametrize("shape", ["a search", "a read"])
def test_the_flag_for_a_child_fires_on_the_patient_of_a_hook(
    shape: str, years: int, indicator: str, ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    document = as_hook(picture_bytes("below", "JPEG"))
    born = patient(birthDate=years_ago(years))
    document["prefetch"]["patient"] = bundle(born) if shape == "a search" else born
    (card,) = ask(flagged, "POST", HOOK, json=document, headers=JSON).json()["cards"]
    assert card["indicator"] == indicator


def test_a_patient_whom_no_subject_refers_to_is_not_read(
    ask: Ask, flagged: Any, picture_bytes: Callable[..., bytes]
):
    """Such as the mother. Her birth date would make an adult of the child."""
    picture = picture_bytes("below", "JPEG")
    mother = patient("p2", birthDate=years_ago(40), deceasedBoolean=True)
    child = patient(birthDate=years_ago(9))
    assert is_referred(sent(ask, flagged, with_resources(picture, mother, child)))
    assert not is_referred(sent(ask, flagged, with_resources(picture, patient("p2", birthDate="2020-99"))))
    elsewhere = with_resources(picture, child)
    elsewhere["entry"][1]["fullUrl"] = "https://a.example/fhir/Media/m0"
    elsewhere["entry"][0]["fullUrl"] = "https://a.example/fhir/ServiceRequest/order-1"
    elsewhere["entry"][2]["fullUrl"] = "https://b.example/fhir/Patient/p1"
    assert not is_referred(sent(ask, flagged, elsewhere))


def test_a_group_is_told_by_the_patient(
    ask: Ask, make_app: MakeApp, tmp_path: Path, picture_bytes: Callable[..., bytes]
):
    by_sex = Grouping(by="sex", thresholds={"female": 0.5})
    app = make_app(Scorer(tiny_bundle.make(tmp_path / "tiny", groupings=(by_sex,))))
    picture = picture_bytes("below", "JPEG")
    for gender, referred in {"female": False, "male": True, "other": True, "unknown": True}.items():
        assert is_referred(sent(ask, app, with_resources(picture, patient(gender=gender)))) is referred


@pytest.mark.parametrize(
    ("said", "history", "field"),
    [
        ({"birthDate": "2031-13-07"}, {}, "Patient.birthDate"),
        ({"birthDate": "1931-07-09"}, {"age_years": 9}, "Patient.birthDate"),
        ({"gender": "male"}, {"sex": "female"}, "Patient.gender"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_patient_is_told_by_the_field(
    said: dict[str, Any], history: dict[str, Any], field: str, ask: Ask, make_app: MakeApp, draw: Any
):
    app = make_app()
    text = outcome(
        sent(ask, app, with_resources(draw(), patient(**said), **history)), 422, "history_not_valid"
    )
    document = as_hook(draw())
    document["prefetch"] |= {"patient": patient(**said), "history": told(**history) if history else None}
    response = ask(app, "POST", HOOK, json=document, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (422, "history_not_valid")
    for found in (text, response.json()["detail"]):
        assert field in found
        assert "31-" not in json.dumps(found)
