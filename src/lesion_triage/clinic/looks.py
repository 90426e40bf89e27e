"""A site's earlier looks at its cases, by its ledger and the bundle's. Imports calibrate and this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lesion_triage.bundle.certificate import Look
from lesion_triage.calibrate import ledger
from lesion_triage.clinic.cases import LocalCases


def repeated_look(
    looks: tuple[ledger.Entry, ...], local: LocalCases, site: str, settings: str
) -> ledger.Entry | None:
    """The earlier look that this one repeats, if any. Under another site's name it is another look."""
    of_site = [look for look in looks if look.site == site]
    return ledger.find_repeated_look(of_site, local.sha256, local.bundle.certificate.model_sha256, settings)


def may_have_been_pooled(local: LocalCases, looks: tuple[ledger.Entry, ...]) -> bool:
    """Whether earlier tallies of this site may have chosen the bundle's pooled threshold."""
    before = local.bundle.certificate
    return before.method == "pooled_counts" and any(
        look.counted and look.model_sha256 == before.model_sha256 for look in looks
    )


def earlier_looks(local: LocalCases, looks: tuple[ledger.Entry, ...]) -> tuple[Look, ...]:
    """Earlier looks at any of these cases, or with this model at any earlier state of the site's table.

    The looks of the bundle's own ledger are included if its threshold was chosen on some of these cases.

    A tally's line does not tell at which confidence its counts chose a threshold, nor how often. So looks of
    the bundle's ledger at this site's counts stand for as many of these lines, the latest.
    """
    certificate = local.bundle.certificate
    inherited = (*certificate.ledger, ledger.look_from_certificate(certificate, certificate.policy_sha256))
    counted = [look for look in looks if look.counted and look.model_sha256 == certificate.model_sha256]
    pooled = pooled_looks(inherited, {look.site for look in counted}, certificate.model_sha256)
    told = counted[max(len(counted) - len(pooled), 0) :]
    at_site = distinct_looks(
        ledger.looks_at_pictures(
            [look for look in looks if look not in told],
            local.sha256,
            local.files_sha256,
            local.table.fingerprints(),
            certificate.model_sha256,
        )
    )
    if local.seen_before:
        return distinct_looks((*inherited, *at_site))
    return tuple(sorted((*at_site, *pooled), key=lambda look: look.looked_at))


def pooled_looks(looks: Sequence[Look], sites: Collection[str], model_sha256: str) -> tuple[Look, ...]:
    """The looks at counts of several sites, of which these are one or more, with this model.

    A pooled certificate names its sites, joined by commas. One site's name may have a comma too, so a look
    may be found here that was at another site: then one more is counted.
    """
    return tuple(
        look
        for look in looks
        if look.model_sha256 == model_sha256
        and any(site != look.site and f", {site}, " in f", {look.site}, " for site in sites)
    )


def distinct_looks(looks: Sequence[Look]) -> tuple[Look, ...]:
    """Each look once. A bundle and a ledger may both record it, with different hashes of the settings.

    The last record of a look is kept, so that the order follows the ledger and the latest look comes last.
    """
    kept: dict[tuple[object, ...], Look] = {}
    for look in looks:
        kept.pop(_key(look), None)
        kept[_key(look)] = look
    return tuple(kept.values())


def _key(look: Look) -> tuple[object, ...]:
    """Everything but the settings. Not the time alone: two looks may be made within a second."""
    return tuple(getattr(look, name) for name in Look.model_fields if name != "settings_sha256")
