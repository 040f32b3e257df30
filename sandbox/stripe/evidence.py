"""The evidence of a dispute: what may be written, how much of it, and what the networks' own programmes still miss
(https://docs.stripe.com/api/disputes/update)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sandbox.stripe.wire import Json, invalid

TEXT_MAX: Final = 150_000
"""How many characters all texts together may have."""
FILES: Final = (
    "cancellation_policy",
    "customer_communication",
    "customer_signature",
    "duplicate_charge_documentation",
    "receipt",
    "refund_policy",
    "service_documentation",
    "shipping_documentation",
    "uncategorized_file",
)
"""What is a file, by its id."""
FILES_SIZE_MAX: Final = 4_500_000
"""How many bytes all files together may have (https://docs.stripe.com/disputes/responding)."""
TEXTS: Final = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_tracking_number",
    "uncategorized_text",
)
COMPELLING: Final = "visa_compelling_evidence_3"
COMPLIANCE: Final = ("visa_compliance", "mastercard_compliance")
_PRIOR_MIN: Final = 2
"""How many earlier undisputed payments Visa wants to see (https://docs.stripe.com/disputes/api/visa-ce3)."""
_IDENTIFIERS: Final = (
    "customer_account_id",
    "customer_device_fingerprint",
    "customer_device_id",
    "customer_email_address",
    "customer_purchase_ip",
    "shipping_address",
)


def nothing_yet() -> Json:
    """Return the evidence of a new dispute."""
    return {**dict.fromkeys(sorted((*FILES, *TEXTS))), "enhanced_evidence": {}}


def merged(before: Json, given: Json, find: Callable[[str], Json | None]) -> Json:
    """Return evidence with what an update gives; an empty text takes away. Raises Stripe's 400 for a file that does not exist,
    and for more text or larger files than there may be together. `find` returns a file."""
    evidence = dict(before)
    for name, value in given.items():
        if name == "enhanced_evidence":
            evidence[name] = _enhanced(before[name], value)
            continue
        if name in FILES and value and find(value) is None:
            raise invalid(f"No such file upload: '{value}'", code="resource_missing", param=f"evidence[{name}]")
        evidence[name] = value or None
    length = sum(len(evidence[name] or "") for name in TEXTS)
    if length > TEXT_MAX:
        raise invalid(
            f"The combined character count of all evidence fields is limited to {TEXT_MAX} ({length} given).",
            param="evidence",
        )
    size = sum(file["size"] for name in FILES if evidence[name] and (file := find(evidence[name])))
    if size > FILES_SIZE_MAX:
        raise invalid(
            f"The combined size of all evidence files is limited to {FILES_SIZE_MAX} bytes ({size} given).",
            param="evidence",
        )
    return evidence


def is_any(evidence: Json) -> bool:
    """Say whether there is any."""
    return any(evidence.values())


def eligibility(types: list[str], evidence: Json) -> Json:
    """Return how a dispute stands with the programmes that it is eligible for."""
    return {name: _standing(name, evidence["enhanced_evidence"].get(name) or {}) for name in types}


def _standing(name: str, given: Json) -> Json:
    if name in COMPLIANCE:
        return {"status": "fee_acknowledged" if given.get("fee_acknowledged") else "requires_fee_acknowledgement"}
    disputed = given.get("disputed_transaction") or {}
    prior = given.get("prior_undisputed_transactions") or []
    missing = {
        "missing_customer_identifiers": not any(disputed.get(one) for one in _IDENTIFIERS),
        "missing_disputed_transaction_description": not disputed.get("product_description"),
        "missing_merchandise_or_services": not disputed.get("merchandise_or_services"),
        "missing_prior_undisputed_transaction_description": not all(one.get("product_description") for one in prior),
        "missing_prior_undisputed_transactions": len(prior) < _PRIOR_MIN,
    }
    actions = [action for action, is_missing in missing.items() if is_missing]
    return {"required_actions": actions, "status": "requires_action" if actions else "qualified"}


def _enhanced(before: Json, given: Any) -> Json:
    """Return a programme's evidence: each that is given replaces what was there, an empty string removes all."""
    enhanced = dict(before) if given else {}
    for name, value in (given or {}).items():
        if name in COMPLIANCE:
            enhanced[name] = {"fee_acknowledged": value.get("fee_acknowledged", False)}
        else:
            disputed = value.get("disputed_transaction")
            enhanced[name] = {
                "disputed_transaction": _without_empty(disputed) if disputed else None,
                "prior_undisputed_transactions": [
                    _without_empty(one) for one in value.get("prior_undisputed_transactions") or []
                ],
            }
    return enhanced


def _without_empty(given: Json) -> Json:
    return {name: value or None for name, value in given.items()}
