"""`python -m sandbox.stripe.tables` writes the tables of cards and declines into README.md; a test checks that it was run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sandbox.stripe.cards import ANY_DECLINE, BRANDS, BY_COUNTRY, SPECIAL, Case, Opening, Secure, TestCard

README: Final = Path(__file__).parents[1] / "README.md"
_SECURE: Final = {
    Secure.NOT_ENROLLED: "",
    Secure.NOT_SUPPORTED: "3-D Secure not supported",
    Secure.OPTIONAL: "3-D Secure when the payment asks for it",
    Secure.OPTIONAL_FAILS: "declined when the payment asks for 3-D Secure",
    Secure.REQUIRED: "3-D Secure always; off-session: `authentication_required`",
    Secure.UNLESS_SET_UP: "3-D Secure on-session; off-session: `authentication_required` until set up",
    Secure.SET_UP: "3-D Secure on-session; off-session succeeds",
    Secure.FRICTIONLESS: "3-D Secure without a challenge",
    Secure.LOOKUP_FAILS: "3-D Secure fails: `card_declined`, `generic_decline`",
}
_CASE: Final = {
    Case.INQUIRY: "an inquiry",
    Case.CHARGEBACK: "a chargeback",
    Case.COMPLIANCE: "a compliance dispute",
}


def tables() -> dict[str, str]:
    """Return each table by the name of its place in README.md."""
    return {"cards": _cards(), "declines": _declines()}


def filled(text: str) -> str:
    """Return README.md with its tables up to date."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    return text


def _cards() -> str:
    rows = ["| payment method | number | card | what it does |", "|---|---|---|---|"]
    rows += [_row(card) for card in BRANDS]
    countries = " ".join(f"`{card.id}`" for card in BY_COUNTRY)
    rows.append(f"| {countries} | in `cards.py` | visa credit of that country | |")
    rows += [_row(card) for card in SPECIAL]
    return "\n".join(rows)


def _row(card: TestCard) -> str:
    ids = ", ".join(f"`{identifier}`" for identifier in card.ids)
    kind = " ".join(filter(None, (card.brand, card.funding, card.country, card.co_brand)))
    return f"| {ids} | {card.number} | {kind} | {'; '.join(_traits(card))} |"


def _traits(card: TestCard) -> list[str]:
    secure = _SECURE[card.secure]
    if card.secure is Secure.REQUIRED and card.decline:
        secure = "3-D Secure on-session"
    traits = [secure]
    if card.decline:
        codes = dict.fromkeys((card.error_code, card.decline))
        traits.append(f"declines {', '.join(f'`{code}`' for code in codes)}, when attached and set up, too" if card.attach_declines
                      else f"declines {', '.join(f'`{code}`' for code in codes)}, when charged")  # fmt: skip
    checks = {
        "cvc_check": card.cvc_check,
        "address_postal_code_check": card.zip_check,
        "address_line1_check": card.line1_check,
    }
    traits += [f"{name} is {value}" for name, value in checks.items() if value not in (None, "pass")]
    flags = {
        "refunds succeed, then fail": card.refund_fails,
        "refunds are pending, then succeed": card.refund_waits,
        "the money is available at once": card.settles_at_once,
        f"risk level {card.risk}": card.risk != "normal",
        "an early fraud warning follows": card.is_warned_of,
    }
    traits += [_disputed(card, opening) for opening in dict.fromkeys(card.disputes)]
    return [trait for trait in (*traits, *(name for name, holds in flags.items() if holds)) if trait]


def _disputed(card: TestCard, opening: Opening) -> str:
    if len(card.disputes) > 1:
        return f"{len(card.disputes)} chargebacks for `{opening.reason}` follow, each for a part of the amount"
    compelling = ", which Compelling Evidence 3.0 may answer" if opening.is_compelling else ""
    return f"{_CASE[opening.case]} for `{opening.reason}` follows{compelling}"


def _declines() -> str:
    rows = ["| payment method | code | decline_code | advice_code | network_decline_code |", "|---|---|---|---|---|"]
    for card in ANY_DECLINE:
        reason = card.reason
        if reason is not None:
            decline = "" if reason.is_code else card.decline
            rows.append(
                f"| `{card.id}` | {card.error_code} | {decline} | {reason.advice or ''} | {reason.network or ''} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
