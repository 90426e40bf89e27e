"""Which case the resources of FHIR make: each photograph once, whoever names it and however."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fhir_asked import resources, sent
from sent_cases import JSON, as_hook, bundle, media, order

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
EHR = "https://ehr.example/fhir"


def lying_at(server: str, *found: dict[str, Any]) -> dict[str, Any]:
    """A bundle as a FHIR server gives it: every entry says where it lies."""
    tree = bundle(*found)
    for entry in tree["entry"]:
        resource = entry["resource"]
        entry["fullUrl"] = f"{server}/{resource['resourceType']}/{resource['id']}"
    return tree


def photographs_of(response: httpx.Response) -> list[str]:
    (risk,) = resources(response)["RiskAssessment"]
    references = [one["reference"] for one in risk["basis"]]
    assert f"Photographs: {len(references)}" in risk["note"][0]["text"]
    return references


@pytest.mark.parametrize("named", ["Media/m{}", f"{EHR}/Media/m{{}}"])
@pytest.mark.parametrize("number", [1, 9, 16])
def test_photographs_with_addresses_count_once_each(
    number: int, named: str, ask: Ask, make_app: MakeApp, draw: Any
):
    names = [named.format(place) for place in range(number)]
    sent_ones = [media(draw(seed=place), f"m{place}") for place in range(number)]
    response = sent(ask, make_app(), lying_at(EHR, order(*names), *sent_ones))
    assert photographs_of(response) == [f"Media/m{place}" for place in range(number)]


def test_a_hook_s_photographs_with_addresses_count_once_each(ask: Ask, make_app: MakeApp, draw: Any):
    document = as_hook(draw())
    document["prefetch"]["photographs"] = lying_at(EHR, media(draw(), "m0"))
    document["context"]["draftOrders"] = bundle(order("Media/m0"))
    response = ask(make_app(), "POST", "/cds-services/lesion-triage", json=document, headers=JSON)
    assert "Photographs: 1" in response.json()["cards"][0]["detail"]


def test_a_photograph_that_is_named_or_sent_twice_counts_once(ask: Ask, make_app: MakeApp, draw: Any):
    app, one = make_app(), media(draw(), "m0")
    for body in (
        bundle(order("Media/m0", "Media/m0"), one),
        bundle(order("Media/m0"), one, one),
        bundle(one, one),
        lying_at(EHR, order("Media/m0", f"{EHR}/Media/m0"), one, one),
    ):
        assert photographs_of(sent(ask, app, body)) == ["Media/m0"]


def test_two_photographs_under_one_name_are_two(ask: Ask, make_app: MakeApp, draw: Any):
    app, two = make_app(), (media(draw(), "m0"), media(draw(seed=1), "m0"))
    for body in (bundle(order("Media/m0"), *two), bundle(*two), lying_at(EHR, order("Media/m0"), *two)):
        assert photographs_of(sent(ask, app, body)) == ["Media/m0", "Media/m0"]
