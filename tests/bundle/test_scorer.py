"""The scorer gives one answer for one case, wherever and beside whatever it is computed."""

import dataclasses
import json
import math
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiny_bundle as tiny
from histories import flag
from lesion_triage.bundle.calibration import calibrated_score
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.history import History
from lesion_triage.bundle.interleaving import run_to_completion
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.messages import Catalogue, english_catalogue
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Answer, Disposition, ReasonCode, SelfTest
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, ImageEvidence, Scorer, score_image
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.errors import BundleError, ConfigError, ImageError, ScoringError

REFERRED, BELOW, BLACK, UNFAMILIAR = (
    tiny.picture_bytes(kind) for kind in ("referred", "below", "black", "unfamiliar")
)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle)


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    rules = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    return Scorer(tiny.make(tmp_path_factory.mktemp("flagged") / "bundle", red_flags=rules))


def graph_with_weight(value: float) -> bytes:
    """The tiny graph with the first of its weights, 0.1, replaced."""
    weight = struct.pack("<f", 0.1)
    assert tiny.GRAPH.count(weight) == 1
    return tiny.GRAPH.replace(weight, struct.pack("<f", value))


def test_what_the_rules_look_at_is_found_out_for_a_bundle_and_not_for_a_case(tmp_path: Path) -> None:
    """A walk through all rules of a site's own costs more than the rest of the words of an answer."""
    rules = RedFlags(flags=(flag({"field": "anatom_site_general", "one_of": ["oral/genital"]}, "bleeding"),))
    flagged = Scorer(tiny.make(tmp_path / "bundle", red_flags=rules))
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        answer = flagged.score([BELOW], History(anatom_site_general="oral/genital"))
    finally:
        sys.setprofile(None)
    assert "assessment_limits" in called
    assert "group_fields_in_rules" not in called
    assert "history_partly_given" in [limit.code for limit in answer.limits]


# One photograph


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_raises(bundle: Bundle, weight: float) -> None:
    broken = Scorer(dataclasses.replace(bundle, graph=graph_with_weight(weight)))
    with pytest.raises(ScoringError, match=r"Photograph 2: .* finite"):
        broken.score([BLACK, REFERRED])
    with pytest.raises(BundleError, match="cannot be scored here"):
        broken.self_test()


def test_evidence_is_a_logit_or_the_reason_why_not(bundle: Bundle) -> None:
    graph, quality = Graph(tiny.GRAPH, tiny.PIXEL_SPEC), bundle.policy.quality
    evidence = score_image(graph, tiny.PIXEL_SPEC, quality, REFERRED)
    assert evidence == ImageEvidence(evidence.logit, refusals=(), novelty=evidence.novelty)
    assert None not in (evidence.logit, evidence.novelty)
    dark = score_image(graph, tiny.PIXEL_SPEC, quality, BLACK)
    assert dark == ImageEvidence(None, refusals=(ReasonCode.image_too_dark,))


def test_an_unfamiliar_photograph_is_refused_only_by_a_gate_and_keeps_its_novelty(bundle: Bundle) -> None:
    graph, quality = Graph(tiny.GRAPH, tiny.PIXEL_SPEC), bundle.policy.quality
    said = score_image(graph, tiny.PIXEL_SPEC, quality, UNFAMILIAR)
    assert said.logit is not None
    assert said.novelty is not None
    assert said.novelty > tiny.NOVELTY_LIMIT
    for limit in (tiny.NOVELTY_LIMIT, said.novelty):  # a tie goes up
        refused = score_image(graph, tiny.PIXEL_SPEC, quality, UNFAMILIAR, novelty_limit=limit)
        assert refused == ImageEvidence(None, (ReasonCode.out_of_distribution,), novelty=said.novelty)
    above = math.nextafter(said.novelty, math.inf)
    assert score_image(graph, tiny.PIXEL_SPEC, quality, UNFAMILIAR, novelty_limit=above) == said


def test_a_novelty_that_is_no_number_raises(bundle: Bundle) -> None:
    spread = struct.pack("<f", 1 / 40)
    assert tiny.GRAPH.count(spread) == 1
    graph = Graph(tiny.GRAPH.replace(spread, struct.pack("<f", math.nan)), tiny.PIXEL_SPEC)
    with pytest.raises(ScoringError, match="novelty is nan"):
        score_image(graph, tiny.PIXEL_SPEC, bundle.policy.quality, REFERRED)


# One case


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """With the novelty gate on."""
    folder = tmp_path_factory.mktemp("gated") / "bundle"
    return Scorer(tiny.make(folder, novelty_limit=tiny.NOVELTY_LIMIT))


def test_an_unfamiliar_photograph_goes_up_with_the_reason(gated: Scorer) -> None:
    answer = gated.score([UNFAMILIAR])
    assert (answer.disposition, answer.score) == (Disposition.ungradable, None)
    assert answer.priority_band == gated.bundle.policy.ungradable_band
    (image,) = answer.images
    assert (image.gradable, image.logit, image.score) == (False, None, None)
    assert [reason.code for reason in image.reasons] == [ReasonCode.out_of_distribution]


def test_an_unfamiliar_photograph_does_not_change_the_score_of_its_case(gated: Scorer) -> None:
    assert gated.score([BELOW, UNFAMILIAR]).score == gated.score([BELOW]).score
    assert gated.score([REFERRED, UNFAMILIAR]).score == gated.score([REFERRED]).score


def test_the_self_test_sees_through_the_gate(gated: Scorer) -> None:
    gated.self_test()
    (unfamiliar,) = (case for case in gated.bundle.selftest.cases if case.file == "unfamiliar.png")
    assert unfamiliar.logit is not None
    assert unfamiliar.disposition is Disposition.ungradable


@pytest.mark.parametrize(
    ("images", "disposition"),
    [
        ([REFERRED], Disposition.needs_in_person),
        ([BELOW], Disposition.below_threshold),
        ([BLACK], Disposition.ungradable),
        ([BELOW, REFERRED], Disposition.needs_in_person),
        ([BELOW, BLACK], Disposition.below_threshold),
        ([BLACK, BLACK], Disposition.ungradable),
    ],
)
def test_dispositions(scorer: Scorer, images: list[bytes], disposition: Disposition) -> None:
    answer = scorer.score(images)
    assert answer.disposition is disposition
    assert (answer.score is None) == (disposition is Disposition.ungradable)
    assert len(answer.images) == len(images)


def test_answer_says_what_it_rests_on(scorer: Scorer, bundle: Bundle) -> None:
    answer = scorer.score([REFERRED, BLACK])
    first, second = answer.images
    assert first.logit is not None
    assert answer.score == first.score == calibrated_score(bundle.policy.calibrator, first.logit)
    assert (first.index, first.gradable, first.reasons) == (0, True, ())
    assert (second.index, second.gradable, second.logit, second.score) == (1, False, None, None)
    assert [reason.code for reason in second.reasons] == [ReasonCode.image_too_dark]
    assert [reason.code for reason in answer.reasons] == [ReasonCode.score_at_or_above_threshold]
    assert answer.threshold == bundle.policy.threshold
    assert (answer.bundle_name, answer.bundle_sha256) == ("tiny", bundle.sha256)
    assert answer.certificate_id == bundle.certificate.certificate_id()
    assert answer.synthetic is True
    assert answer.notice == english_catalogue().notice
    assert answer.language == "en"
    assert Answer.model_validate_json(answer.to_json()) == answer


@pytest.mark.parametrize("images", [[REFERRED], [BELOW], [BLACK], [BELOW, BLACK]])
@pytest.mark.parametrize("language", ["en", "de"])
def test_answer_never_discharges_and_names_no_lesion(
    flagged: Scorer, images: list[bytes], language: str
) -> None:
    history = History(bleeding=True, painful=False, age_years=61)
    answer = flagged.score(images, history, language)
    assert answer.language == language
    text = answer.to_json().replace(answer.notice, "")
    assert forbidden_words_in(language, text) == []


def test_answer_says_in_words_what_was_decided_and_what_was_not_assessed(flagged: Scorer) -> None:
    answer = flagged.score([BELOW, BLACK], History(bleeding=True, painful=False))
    assert [reason.code for reason in answer.reasons] == [ReasonCode.red_flag]
    assert [(flag.code, flag.refers) for flag in answer.red_flags] == [("bleeding", True)]
    assert {"photographs_unusable", "history_partly_given"} <= {limit.code for limit in answer.limits}
    assert "firmness_and_thickness" in {gap.code for gap in answer.not_assessed}
    assert "keep_the_appointment" in {advice.code for advice in answer.counselling}
    texts = english_catalogue()
    for remark in (*answer.limits, *answer.not_assessed, *answer.counselling, *answer.red_flags):
        assert remark.text in answer.note
    assert answer.images[1].reasons[0].coaching == texts.reasons["image_too_dark"].coaching
    assert answer.certificate_id in answer.note


def test_a_spoilt_photograph_beside_a_low_one_is_asked_for_again(bundle: Bundle) -> None:
    policy = bundle.policy.model_copy(update={"threshold": 1.0, "band_limits": (1.0, 1.0, 1.0)})
    scorer = Scorer(dataclasses.replace(bundle, policy=policy))
    alone, beside = scorer.score([BELOW]), scorer.score([BELOW, BLACK])
    assert (alone.priority_band, beside.priority_band) == (4, 3)
    assert beside.disposition is alone.disposition is Disposition.below_threshold
    assert [reason.code for reason in beside.reasons[1:]] == [ReasonCode.unusable_image_band]
    assert beside.reasons[1].text in beside.note


def test_the_same_case_has_the_same_codes_in_every_language(flagged: Scorer) -> None:
    history = History(bleeding=True)
    english_, german = (flagged.score([BELOW, BLACK], history, language) for language in ("en", "de"))
    for part in ("reasons", "red_flags", "limits", "not_assessed", "counselling"):
        ours, theirs = getattr(english_, part), getattr(german, part)
        assert [one.code for one in ours] == [one.code for one in theirs]
        assert all(one.text != other.text for one, other in zip(ours, theirs, strict=True))
    assert (english_.score, english_.disposition) == (german.score, german.disposition)


def test_a_language_without_texts_is_refused_by_name(scorer: Scorer) -> None:
    with pytest.raises(ConfigError, match="language 'xx'; there are de, en"):
        scorer.score([BELOW], language="xx")


def test_a_bundle_whose_red_flag_has_no_text_still_passes_its_self_test(tmp_path: Path) -> None:
    own = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "a_flag_of_our_own"),))
    scorer = Scorer(tiny.make(tmp_path / "bundle", red_flags=own))
    scorer.self_test()
    with pytest.raises(ConfigError, match="a_flag_of_our_own"):
        scorer.score([BELOW])


def test_a_language_that_cannot_name_a_red_flag_is_not_offered(tmp_path: Path) -> None:
    message = {"label": "own", "text": "Something of our own."}
    (tmp_path / "de.json").write_text(json.dumps({"red_flags": {"a_flag_of_our_own": message}}))
    assert Languages.for_flags(["a_flag_of_our_own"], "de", tmp_path).names == ("de",)
    with pytest.raises(ConfigError, match="language 'en' has no text for the red flag a_flag_of_our_own"):
        Languages.for_flags(["a_flag_of_our_own"], "en", tmp_path)
    assert isinstance(Languages.for_flags([], "de").catalogue(), Catalogue)


@pytest.mark.parametrize("count", [0, MAX_IMAGES_PER_CASE + 1])
def test_number_of_photographs_has_limits(scorer: Scorer, count: int) -> None:
    with pytest.raises(ScoringError, match=f"{count} photographs, expected 1 to 16"):
        scorer.score([BELOW] * count)


def test_sixteen_photographs_are_a_case(scorer: Scorer) -> None:
    assert len(scorer.score([BELOW] * MAX_IMAGES_PER_CASE).images) == 16


def test_a_photograph_that_cannot_be_used_is_named(scorer: Scorer) -> None:
    with pytest.raises(ImageError, match=r"^Photograph 2: ") as caught:
        scorer.score([BELOW, b"text posted as a picture", REFERRED])
    assert (caught.value.code, caught.value.index) == ("image_format_not_supported", 1)


def test_a_photograph_scores_alike_alone_and_among_others(scorer: Scorer) -> None:
    by_itself = [scorer.score([image]).images[0].logit for image in (REFERRED, BELOW)]
    together = [image.logit for image in scorer.score([REFERRED, BELOW]).images]
    assert together == by_itself


@pytest.mark.parametrize("images", [[REFERRED], [BLACK], [BELOW, BLACK, REFERRED], [UNFAMILIAR, BELOW]])
def test_helpers_change_nothing_of_a_judgement(gated: Scorer, images: list[bytes]) -> None:
    with ThreadPoolExecutor(1) as helpers:
        for _ in range(20):  # who does what is decided anew each time
            assert run_to_completion(
                gated.decide_case_stepwise(images, executor=helpers)
            ) == gated.decide_case(images)


def test_helpers_change_nothing_of_a_refusal(bundle: Bundle, scorer: Scorer) -> None:
    broken = Scorer(dataclasses.replace(bundle, graph=graph_with_weight(math.nan)))
    with ThreadPoolExecutor(1) as helpers:
        with pytest.raises(ImageError, match=r"^Photograph 2: ") as caught:
            run_to_completion(
                scorer.decide_case_stepwise([BELOW, b"text", REFERRED, b"more text"], executor=helpers)
            )
        assert (caught.value.code, caught.value.index) == ("image_format_not_supported", 1)
        with pytest.raises(ScoringError, match=r"Photograph 2: .* finite"):
            run_to_completion(broken.decide_case_stepwise([BLACK, REFERRED], executor=helpers))
        # The network has been asked in vain, and what it said of a refused photograph is nobody's business.
        assert run_to_completion(
            broken.decide_case_stepwise([BLACK], executor=helpers)
        ) == broken.decide_case([BLACK])


def test_answers_have_the_same_bits_in_every_thread(scorer: Scorer, tiny_bundle: Path) -> None:
    images = [tiny.picture_bytes("below", "JPEG", (300 + 7 * step, 200)) for step in range(5)]
    expected = [scorer.score([image]).to_json() for image in images]
    wrong: list[int] = []

    def work(mine: Scorer) -> None:
        answers = [mine.score([images[number % 5]]).to_json() for number in range(20)]
        wrong.extend(number for number in range(20) if answers[number] != expected[number % 5])

    scorers = [scorer, scorer, scorer, Scorer.open(tiny_bundle), Scorer.open(tiny_bundle)]
    threads = [threading.Thread(target=work, args=(mine,)) for mine in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_mean_aggregation_is_honoured(tmp_path: Path) -> None:
    mean = Scorer(tiny.make(tmp_path / "bundle", aggregation="mean"))
    logits = [mean.score([image]).images[0].logit for image in (REFERRED, BELOW)]
    assert None not in logits
    expected = calibrated_score(mean.bundle.policy.calibrator, float(np.mean(logits)))
    assert mean.score([REFERRED, BELOW]).score == pytest.approx(expected)


# The self-test


def test_self_test_passes_where_it_was_sealed(scorer: Scorer) -> None:
    scorer.self_test()


def with_case(bundle: Bundle, index: int, **change: object) -> Scorer:
    cases = list(bundle.selftest.cases)
    cases[index] = cases[index].model_copy(update=change)
    return Scorer(dataclasses.replace(bundle, selftest=SelfTest(cases=tuple(cases))))


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"logit": 5.002}),
        (0, {"logit": None}),
        (0, {"novelty": 1.5}),
        (0, {"novelty": None}),
        (3, {"novelty": 7.0}),
        (0, {"disposition": Disposition.below_threshold}),
        (1, {"disposition": Disposition.needs_in_person}),
        (2, {"logit": 0.0}),
        (2, {"disposition": Disposition.below_threshold}),
    ],
)
def test_self_test_refuses_another_outcome(bundle: Bundle, index: int, change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=bundle.selftest.cases[index].file):
        with_case(bundle, index, **change).self_test()


def test_self_test_tolerates_the_last_digits(bundle: Bundle) -> None:
    sealed = bundle.selftest.cases[0].logit
    assert sealed is not None
    with_case(bundle, 0, logit=sealed + 0.0009).self_test()


def test_self_test_notices_another_graph(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="do not serve"):
        Scorer(dataclasses.replace(bundle, graph=graph_with_weight(0.11))).self_test()


def test_self_test_notices_pictures_that_cannot_be_read(bundle: Bundle) -> None:
    pictures = dict.fromkeys(bundle.selftest_pictures, b"")
    with pytest.raises(BundleError, match="no bytes"):
        Scorer(dataclasses.replace(bundle, selftest_pictures=pictures)).self_test()
