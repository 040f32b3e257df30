"""The SQL of Stripe's balance transactions: what was pulled, what each was found to mean, and what of it is booked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from servers.kernel.money import Money
from servers.payments.domain import BalanceTransaction, ReconciliationItem
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far Stripe's balance transactions were pulled, and our own records looked through."""

    pulled_until: datetime
    expected_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A balance transaction whose meaning is known, to be booked in the ledger."""

    transaction: BalanceTransaction
    matched: Money
    counterpart: str
    explained: bool


async def reconciliation_progress(conn: Connection, *, start: datetime) -> Progress:
    """Return how far it got; from `start` where it never ran."""
    conn.write(
        text(
            """
            INSERT INTO reconciliation_progress (id, pulled_until, expected_until) VALUES ('stripe', :start, :start)
            ON CONFLICT DO NOTHING
            """
        ),
        {"start": start},
    )
    row = (await conn.execute(text("SELECT pulled_until, expected_until FROM reconciliation_progress"))).one()
    return Progress(pulled_until=row.pulled_until, expected_until=row.expected_until)


def advance_reconciliation(
    conn: Connection, *, pulled_until: datetime | None = None, expected_until: datetime | None = None
) -> None:
    """Note how far it got; never back."""
    conn.write(
        text(
            """
            UPDATE reconciliation_progress SET pulled_until = greatest(pulled_until, CAST(:pulled AS timestamptz)),
                                               expected_until = greatest(expected_until, CAST(:expected AS timestamptz))
            """
        ),
        {"pulled": pulled_until, "expected": expected_until},
    )


async def save_balance(conn: Connection, balance: Mapping[str, int], now: datetime) -> Mapping[str, int]:
    """Note Stripe's balance per currency beside the sum of the lines that were pulled. What stood there before the first line is
    the baseline. Returns by how much they differ, per currency."""
    await conn.execute(
        text(
            """
            WITH mirrored AS (
                SELECT coalesce(jsonb_object_agg(currency, net), '{}') AS sums
                FROM (SELECT currency, sum(amount_minor - fee_minor) AS net FROM balance_transactions GROUP BY currency) s),
            base AS (
                SELECT coalesce(jsonb_object_agg(b.key, CAST(b.value AS bigint) - coalesce(CAST(m.sums ->> b.key AS bigint), 0)),
                                '{}') AS sums
                FROM mirrored m, jsonb_each_text(CAST(:balance AS jsonb)) b)
            UPDATE reconciliation_progress p
            SET stripe_balance = CAST(:balance AS jsonb), mirrored_balance = mirrored.sums, balance_time = :now,
                baseline = coalesce(p.baseline, base.sums)
            FROM mirrored, base
            """
        ),
        {"balance": json.dumps(dict(balance)), "now": now},
    )
    row = (
        await conn.execute(text("SELECT stripe_balance, mirrored_balance, baseline FROM reconciliation_progress"))
    ).one()
    currencies = {*row.stripe_balance, *row.mirrored_balance, *row.baseline}
    differences = {
        c: row.stripe_balance.get(c, 0) - row.mirrored_balance.get(c, 0) - row.baseline.get(c, 0) for c in currencies
    }
    return dict(sorted(differences.items()))


async def save_balance_transactions(conn: Connection, arrived: Sequence[BalanceTransaction], now: datetime) -> int:
    """Store what was pulled; what is there already stays. Returns how many are new."""
    if not arrived:
        return 0
    done = await conn.execute(
        text(
            """
            INSERT INTO balance_transactions (id, type, source_id, payment_intent_id, amount_minor, fee_minor, currency,
                                              exchange_rate, create_time, pull_time, state)
            SELECT id, type, source_id, intent, amount, fee, currency, rate, created, :now, 'STORED'
            FROM unnest(CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:sources AS text[]), CAST(:intents AS text[]),
                        CAST(:amounts AS bigint[]), CAST(:fees AS bigint[]), CAST(:currencies AS text[]),
                        CAST(:rates AS numeric[]), CAST(:created AS timestamptz[]))
                 AS n(id, type, source_id, intent, amount, fee, currency, rate, created)
            ON CONFLICT DO NOTHING
            """
        ),
        {
            "ids": [one.id for one in arrived],
            "types": [one.type for one in arrived],
            "sources": [one.source_id for one in arrived],
            "intents": [one.payment_intent_id for one in arrived],
            "amounts": [one.amount.amount_minor for one in arrived],
            "fees": [one.fee.amount_minor for one in arrived],
            "currencies": [one.amount.currency for one in arrived],
            "rates": [one.exchange_rate for one in arrived],
            "created": [one.create_time for one in arrived],
            "now": now,
        },
    )
    return done.rowcount


async def stored_balance_transactions(
    conn: Connection, *, before: datetime, after: tuple[datetime, str] | None, limit: int
) -> list[tuple[datetime, str]]:
    """Return time and id of lines that nobody has judged yet, oldest first, behind the line `after`."""
    time, identifier = after if after is not None else (datetime.min.replace(tzinfo=UTC), "")
    rows = await conn.execute(
        text(
            """
            SELECT create_time, id FROM balance_transactions
            WHERE state = 'STORED' AND pull_time <= :before AND (create_time, id) > (:time, :id)
            ORDER BY create_time, id LIMIT :limit
            """
        ),
        {"before": before, "time": time, "id": identifier, "limit": limit},
    )
    return [(row.create_time, row.id) for row in rows]


async def lock_stored(conn: Connection, identifier: str) -> BalanceTransaction | None:
    """Lock a line for judging; None where somebody else judges it or has."""
    row = (
        await conn.execute(
            text(
                "SELECT * FROM balance_transactions WHERE id = :id AND state = 'STORED' FOR NO KEY UPDATE SKIP LOCKED"
            ),
            {"id": identifier},
        )
    ).one_or_none()
    return _transaction(row) if row is not None else None


def save_judgement(
    conn: Connection,
    identifier: str,
    *,
    matched: Money,
    counterpart: str,
    item: ReconciliationItem | None,
    explained: bool = False,
    booked: bool = False,
) -> None:
    """Note what a line means: the intent to book it so. `booked`: a fact of payments' own books it under the line's id."""
    conn.write(
        text(
            """
            UPDATE balance_transactions
            SET state = CASE WHEN :booked THEN 'BOOKED' ELSE 'JUDGED' END, matched_minor = :matched,
                matched_currency = :currency, counterpart = :counterpart, item_owner_id = :owner, item_id = :item,
                explained = :explained
            WHERE id = :id AND state = CASE WHEN :explained THEN 'BOOKED' ELSE 'STORED' END
            """
        ),
        {
            "id": identifier,
            "matched": matched.amount_minor,
            "currency": matched.currency,
            "counterpart": counterpart,
            "owner": item.owner_id if item is not None else "",
            "item": item.id if item is not None else "",
            "explained": explained,
            "booked": booked,
        },
        one_of=identifier,
    )


async def judged_lines(conn: Connection, *, limit: int) -> list[Judged]:
    """Return lines that are to be booked, oldest first."""
    rows = await conn.execute(
        text("SELECT * FROM balance_transactions WHERE state = 'JUDGED' ORDER BY create_time, id LIMIT :limit"),
        {"limit": limit},
    )
    return [
        Judged(
            transaction=_transaction(row),
            matched=Money(amount_minor=row.matched_minor, currency=row.matched_currency),
            counterpart=row.counterpart,
            explained=row.explained,
        )
        for row in rows
    ]


def note_booked(conn: Connection, identifier: str) -> None:
    """Note that a line is in the ledger."""
    conn.write(
        text("UPDATE balance_transactions SET state = 'BOOKED' WHERE id = :id AND state = 'JUDGED'"),
        {"id": identifier},
    )


async def payment_of_line(conn: Connection, line: BalanceTransaction) -> tuple[str, str, bool] | None:
    """Return owner and id of the payment that a line is about, and whether something of it is still under way."""
    row = (
        await conn.execute(
            text(
                """
                SELECT p.owner_id, p.id,
                       EXISTS (SELECT 1 FROM attempts a WHERE a.owner_id = p.owner_id AND a.payment_id = p.id
                               AND a.state IN ('CREATED', 'SENT', 'PENDING', 'UNKNOWN', 'REQUIRES_ACTION', 'NEEDS_OPERATOR'))
                    OR EXISTS (SELECT 1 FROM operations o WHERE o.owner_id = p.owner_id AND o.payment_id = p.id
                               AND o.state IN ('CREATED', 'UNKNOWN', 'NEEDS_OPERATOR'))
                    OR EXISTS (SELECT 1 FROM refunds r WHERE r.owner_id = p.owner_id AND r.payment_id = p.id
                               AND r.state = 'PENDING' AND r.stripe_refund_id = '') AS open
                FROM payments p WHERE p.stripe_payment_intent_id = :intent
                """
            ),
            {"intent": line.payment_intent_id},
        )
    ).one_or_none()
    return (row.owner_id, row.id, row.open) if row is not None else None


async def lines_of_item(conn: Connection, item: ReconciliationItem) -> list[BalanceTransaction]:
    """Return the balance transactions of an item, oldest first."""
    mine = text("SELECT * FROM balance_transactions WHERE item_id = :item AND item_id <> '' ORDER BY create_time, id")
    rows = await conn.execute(mine, {"item": item.id})
    return [_transaction(row) for row in rows]


async def in_suspense(conn: Connection, item: ReconciliationItem) -> Money | None:
    """Return what an item's lines put into suspense, or are about to, or None where there is nothing of it."""
    row = (
        await conn.execute(
            text(
                """
                SELECT currency, sum(amount_minor - CASE WHEN matched_currency = currency THEN matched_minor ELSE 0 END) AS minor
                FROM balance_transactions
                WHERE item_id = :item AND item_id <> '' AND state <> 'STORED' AND (matched_currency = currency OR matched_minor = 0)
                GROUP BY currency
                """
            ),
            {"item": item.id},
        )
    ).one_or_none()
    return Money(amount_minor=int(row.minor), currency=row.currency) if row is not None and row.minor else None


def _transaction(row: Row) -> BalanceTransaction:
    return BalanceTransaction(
        id=row.id,
        type=row.type,
        source_id=row.source_id,
        payment_intent_id=row.payment_intent_id,
        amount=Money(amount_minor=row.amount_minor, currency=row.currency),
        fee=Money(amount_minor=row.fee_minor, currency=row.currency),
        exchange_rate=row.exchange_rate,
        create_time=row.create_time,
        pull_time=row.pull_time,
    )
