"""`python -m sandbox.stripe.tables` writes the tables of docs/sandbox.md from the code; a test checks that it was run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from sandbox.stripe import (
    amounts,
    charges,
    disputes,
    events,
    evidence,
    files,
    idempotency,
    journal,
    ledger,
    lists,
    payouts,
    refunds,
    topups,
    wire,
)
from sandbox.stripe.app import assembled
from sandbox.stripe.cards import ANY_DECLINE, BRANDS, BY_COUNTRY, SPECIAL, Case, Opening, Secure, TestCard
from sandbox.stripe.settings import Settings
from sandbox.stripe.switches import SWITCHES
from sandbox.stripe.weather import PRESETS, REQUESTS, WEBHOOKS

PAGE: Final = Path(__file__).parents[2] / "docs" / "sandbox.md"
DAY: Final = 24 * 3600
TIMES: Final = (
    ("an authorization ends", charges.authorization_seconds("visa", off_session=False)),
    ("… of Visa, off-session", charges.authorization_seconds("visa", off_session=True)),
    ("a charge's money is available", ledger.AVAILABLE_AFTER_SECONDS),
    ("the bank answers a refund that is not done at once", refunds.BANK_ANSWERS_AFTER_SECONDS),
    ("a refund that asks the customer expires", refunds.ACTION_EXPIRES_AFTER_SECONDS),
    ("evidence is due: at the end of the day, after", disputes.DUE_DAYS * DAY),
    ("a chargeback without an answer is lost, after the deadline", disputes.OVERDUE_AFTER_SECONDS),
    ("an inquiry is closed", disputes.LAPSES_AFTER_SECONDS),
    ("the issuer answers winning, losing and escalating evidence", disputes.ISSUER_ANSWERS_AFTER_SECONDS),
    ("a payout is sent, and cannot be canceled any more", payouts.SENT_AFTER_SECONDS),
    ("a payout arrives: at the beginning of the day, after", payouts.ARRIVES_AFTER_DAYS * DAY),
    ("a top-up arrives", topups.ARRIVES_AFTER_SECONDS),
    ("an idempotency key is forgotten", idempotency.KEEP_SECONDS),
    ("an event is not listed any more", lists.EVENTS_KEPT_SECONDS),
)
LIMITS: Final = (
    ("objects on a page", lists.LIMIT_MAX),
    ("types in a list of events", lists.TYPES_MAX),
    ("levels of an expansion", lists.EXPAND_DEPTH_MAX),
    ("bytes of a request's body", wire.MAX_BODY_BYTES),
    ("characters of an idempotency key", idempotency.LENGTH_MAX),
    ("characters of all texts of a dispute's evidence", evidence.TEXT_MAX),
    ("bytes of a file of evidence", files.SIZE_MAX),
    ("bytes of all files of a dispute's evidence", evidence.FILES_SIZE_MAX),
    ("the largest amount", amounts.LARGEST),
    ("captures of a charge", charges.CAPTURES_MAX),
    ("percent that may be overcaptured", charges.OVERCAPTURE_PERCENT),
    ("requests in the log", journal.ENTRIES_MAX),
    ("tries to deliver an event", events.TRIES_MAX),
)
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
    """Return each table by the name of its place on the page."""
    return {
        "settings": _settings(),
        "endpoints": _endpoints(),
        "switches": _table(
            "| call | takes | does |", [(f"`{s.method} /_sandbox/{s.path}`", s.takes, s.does) for s in SWITCHES]
        ),
        "weather": _weather(),
        "times": _table("| what | after |", [(what, _span(seconds)) for what, seconds in TIMES]),
        "limits": _table("| what | at most |", [(what, f"{most:,}") for what, most in LIMITS]),
        "cards": _cards(),
        "declines": _declines(),
    }


def filled(text: str) -> str:
    """Return the page with its tables up to date."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    return text


def _table(head: str, rows: Sequence[tuple[str, ...]]) -> str:
    rule = "|" + "---|" * (head.count("|") - 1)
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def _span(seconds: int) -> str:
    for unit, size in (("day", DAY), ("hour", 3600), ("second", 1)):
        if seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}{'s' if number > 1 else ''}"
    raise ValueError(seconds)


def _settings() -> str:
    rows = []
    for name, setting in Settings.model_fields.items():
        default = setting.default.get_secret_value() if isinstance(setting.default, SecretStr) else setting.default
        shown = "must be set" if default is PydanticUndefined else "" if default in ("", None) else f"`{default}`"
        rows.append((f"`STRIPE_SANDBOX_{name.upper()}`", shown, setting.description or ""))
    return _table("| variable | default | what it is |", rows)


def _endpoints() -> str:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), api_key=SecretStr("unused"))
        box = assembled(settings)
        box.desk.store.db.close()
    rows = [
        (f"`{one.method.upper()} {one.path}`", " ".join(f"`{name}`" for name in sorted(one.serves - {"expand"})))
        for one in sorted(box.routes.endpoints, key=lambda one: (one.path, one.method))
    ]
    return _table("| endpoint | parameters |", rows)


def _weather() -> str:
    rows = [
        (place, f"`{name}`", *(f"{chances[place].get(name, 0):.0%}" for chances in PRESETS.values()))
        for place, known in (("requests", REQUESTS), ("webhooks", WEBHOOKS))
        for name in known
    ]
    return _table(f"| of | what | {' | '.join(f'`{preset}`' for preset in PRESETS)} |", rows)


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
    PAGE.write_text(filled(PAGE.read_text()))
