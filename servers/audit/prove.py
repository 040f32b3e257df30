"""Runs the invariants: those of one database as statements, those between databases by comparing what each says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from servers.audit.invariants import CHECKS
from servers.audit.processor import clearing_follows_stripe, refunds_in_transit
from servers.audit.verdict import Verdict

SHOWN: Final = 5
QUIET_SECONDS: Final = 20.0
DOMAINS: Final = ("identity", "payments", "wallets", "notifications")
_OF_RETURNED_FEES: Final = "code LIKE 'refund.fee.%' OR code LIKE 'refund_failed.fee.%'"


def prove(urls: Mapping[str, str]) -> list[Verdict]:
    """Run every check on the databases at `urls` (identity, payments, wallets, notifications, eventlog)."""
    engines = {name: _engine(url) for name, url in urls.items()}
    try:
        quiet = _wait_until_drained(engines)
        verdicts = [_run(engines[check.database], check) for check in CHECKS]
        verdicts += [_relayed(engines, domain) for domain in DOMAINS]
        verdicts.append(quiet)
        if quiet.holds:
            verdicts += [
                _captures_booked(engines),
                _wallet_captures_booked(engines),
                _top_ups_booked(engines),
                _refunds_booked(engines),
                clearing_follows_stripe(engines),
                refunds_in_transit(engines),
                _fees_kept(engines),
                _disputes_held(engines),
                _dispute_funds_booked(engines),
                _payments_netted(engines),
                _suspense_booked(engines),
                _nothing_unasked(engines),
                _consumed_once(engines),
            ]
        return sorted(verdicts, key=lambda verdict: (len(verdict.invariant), verdict.invariant))
    finally:
        for engine in engines.values():
            engine.dispose()


def _engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)


def _run(engine: Engine, check: Any) -> Verdict:
    # One snapshot for both statements: the books may move meanwhile.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        looked_at = int(conn.scalar(text(check.count)) or 0)
        broken = _rows(conn, check.broken)
    return Verdict(invariant=check.invariant, title=check.title, looked_at=looked_at, broken=broken)


def _rows(conn: Connection, statement: str) -> tuple[tuple[str, str], ...]:
    return tuple((str(row[0]), str(row[1])) for row in conn.execute(text(statement)).all())


def _wait_until_drained(engines: Mapping[str, Engine]) -> Verdict:
    """Wait, bounded, until the outboxes are empty and the consumers have read everything."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        left: list[tuple[str, str]] = []
        for domain in DOMAINS:
            with engines[domain].connect() as conn:
                waiting = conn.scalar(text("SELECT count(*) FROM outbox"))
                dead = conn.scalar(text("SELECT count(*) FROM dead_letters"))
            if waiting:
                left.append((domain, f"{waiting} outbox rows wait for the relay"))
            if dead:
                left.append((domain, f"{dead} dead letters"))
        with engines["eventlog"].connect() as conn:
            left += [
                (f"{row.group_name} {row.topic}/{row.partition}", f"{row.lag} records behind")
                for row in conn.execute(
                    text(
                        """
                        SELECT c.group_name, c.topic, c.partition, h.next_offset - c.committed AS lag FROM claims c
                        JOIN heads h USING (topic, partition) WHERE h.next_offset > c.committed
                        """
                    )
                )
            ]
        if not left or time.monotonic() > deadline:
            title = "outboxes, event log and consumers are drained, no dead letters"
            return Verdict(invariant="I8", title=title, looked_at=len(DOMAINS) + 1, broken=tuple(left))
        time.sleep(0.2)


def _relayed(engines: Mapping[str, Engine], domain: str) -> Verdict:
    with engines[domain].connect() as conn:
        archived = {row[0] for row in conn.execute(text("SELECT event_id FROM outbox_archive"))}
    with engines["eventlog"].connect() as conn:
        topic = f"paymesh.{domain}.v1"
        rows = conn.execute(text("SELECT event_id FROM records WHERE topic = :topic"), {"topic": topic}).all()
    logged = [row[0] for row in rows]
    broken = [(event_id, "archived, but not in the event log") for event_id in sorted(archived - set(logged))]
    repeats = len(logged) - len(set(logged))
    if repeats:
        broken.append((topic, f"{repeats} events are in the log twice"))
    title = f"every archived event of {domain} is in the event log, once"
    return Verdict(invariant="I8", title=title, looked_at=len(archived), broken=tuple(broken))


def _fact_sums(engines: Mapping[str, Engine], which: str) -> dict[str, int]:
    with engines["wallets"].connect() as conn:
        rows = conn.execute(text(f"SELECT fact_id, sum(amount_minor) FROM transfers WHERE {which} GROUP BY fact_id"))
        return {row[0]: int(row[1]) for row in rows}


def _captures(engines: Mapping[str, Engine]) -> list[Any]:
    """Return every capture with what its payment is for, who pays, and the wallet that it took from, if any."""
    statement = """
        SELECT c.id, c.amount_minor, c.fee_minor, c.currency, p.purpose, p.top_up_id, p.customer_id,
               coalesce(a.wallet_id, '') AS wallet_id
        FROM captures c JOIN payments p ON p.owner_id = c.owner_id AND p.id = c.payment_id
        LEFT JOIN attempts a ON a.owner_id = c.owner_id AND a.payment_id = c.payment_id AND a.state = 'SUCCEEDED'
        """
    with engines["payments"].connect() as conn:
        return list(conn.execute(text(statement)).all())


def _captures_booked(engines: Mapping[str, Engine]) -> Verdict:
    booked = _fact_sums(engines, "kind = 'POSTED'")
    fees = _fact_sums(engines, "code = 'capture.fee'")
    captures = [row for row in _captures(engines) if not row.wallet_id]
    broken = []
    for row in captures:
        ours, ledgers = (row.amount_minor, row.fee_minor), (booked.get(row.id, 0), fees.get(row.id, 0))
        if ours != ledgers:
            broken.append((row.id, f"captured with fee {ours}, the ledger says {ledgers}"))
    title = "every capture from a card is in the ledger with its amount, and its fee"
    return Verdict(invariant="I6", title=title, looked_at=len(captures), broken=tuple(broken))


def _wallet_captures_booked(engines: Mapping[str, Engine]) -> Verdict:
    fees = _fact_sums(engines, "code = 'capture.fee'")
    statement = """
        SELECT t.fact_id, t.amount_minor, a.owner_id, w.id AS wallet_id FROM transfers t
        JOIN accounts a ON a.id = t.debit_account_id
        LEFT JOIN wallets w ON w.owner_id = a.owner_id AND w.currency = a.currency
        WHERE t.kind = 'POST_PENDING' AND t.fact_id LIKE 'cap_%' AND a.kind = 'CUSTOMER_WALLET'
        """
    with engines["wallets"].connect() as conn:
        rows = conn.execute(text(statement))
        taken = {row.fact_id: (int(row.amount_minor), row.owner_id, row.wallet_id) for row in rows}
    captures = [row for row in _captures(engines) if row.wallet_id]
    broken = []
    for row in captures:
        ours = ((row.amount_minor, row.customer_id, row.wallet_id), row.fee_minor)
        ledgers = (taken.get(row.id), fees.get(row.id, 0))
        if ours != ledgers:
            broken.append((row.id, f"captured {ours}, the ledger says {ledgers}"))
    title = "every capture from a wallet took its amount from that wallet, and its fee"
    return Verdict(invariant="I6", title=title, looked_at=len(captures), broken=tuple(broken))


def _top_ups_booked(engines: Mapping[str, Engine]) -> Verdict:
    statement = """
        SELECT t.fact_id, t.amount_minor, t.code, a.owner_id, a.currency FROM transfers t
        JOIN accounts a ON a.id = t.credit_account_id AND a.kind = 'CUSTOMER_WALLET' WHERE t.code LIKE 'top_up.%'
        """
    with engines["wallets"].connect() as conn:
        booked = {
            row.fact_id: (int(row.amount_minor), row.currency, row.owner_id, row.code)
            for row in conn.execute(text(statement))
        }
    captures = {
        row.id: (row.amount_minor, row.currency, row.customer_id, f"top_up.{row.top_up_id}")
        for row in _captures(engines)
        if row.purpose == "TOP_UP"
    }
    broken = tuple(
        (fact_id, f"charged {captures.get(fact_id)}, the ledger says {booked.get(fact_id)}")
        for fact_id in sorted(captures.keys() | booked.keys())
        if captures.get(fact_id) != booked.get(fact_id)
    )
    title = "every card that was charged for a top-up filled its customer's wallet, and nothing else did"
    return Verdict(invariant="I6", title=title, looked_at=len(captures), broken=broken)


def _refunds_booked(engines: Mapping[str, Engine]) -> Verdict:
    booked = _fact_sums(engines, f"kind = 'POSTED' AND code <> 'refund.wallet' AND NOT ({_OF_RETURNED_FEES})")
    fees = _fact_sums(engines, _OF_RETURNED_FEES)
    given = _fact_sums(engines, "code = 'refund.wallet'")
    # A refund that was just created may still be on its way to the ledger: only those that were answered count.
    statement = """
        SELECT r.id, r.amount_minor, r.fee_returned_minor, r.state,
               CASE WHEN r.suspense_item_id = '' THEN coalesce(a.wallet_id, '') ELSE '' END AS wallet_id FROM refunds r
        LEFT JOIN attempts a ON a.owner_id = r.owner_id AND a.payment_id = r.payment_id AND a.state = 'SUCCEEDED'
        WHERE r.state <> 'PENDING'
        """
    with engines["payments"].connect() as conn:
        refunds = conn.execute(text(statement)).all()
    broken = []
    for row in refunds:
        undone, failed = row.state in ("FAILED", "CANCELED"), f"{row.id}:failed"
        to_wallet = row.amount_minor if row.wallet_id else 0
        pairs = [(row.amount_minor, row.amount_minor if undone else 0)]
        pairs.append((row.fee_returned_minor, row.fee_returned_minor if undone else 0))
        ledgers = [(sums.get(row.id, 0), sums.get(failed, 0)) for sums in (booked, fees)]
        books = (ledgers, given.get(row.id, 0))
        # What was canceled while it waited, or on its way, may never have come to the ledger.
        unbooked = row.state == "CANCELED" and books == ([(0, 0), (0, 0)], 0)
        if books != (pairs, to_wallet) and not unbooked:
            detail = (
                f"the ledger took {ledgers[0][0]}, gave back {ledgers[0][1]}, and to a wallet {given.get(row.id, 0)}"
            )
            of_fee = f"of the fee {row.fee_returned_minor}: returned {ledgers[1][0]}, taken back {ledgers[1][1]}"
            broken.append((row.id, f"{row.state} {row.amount_minor}; {detail}; {of_fee}"))
    title = (
        "every settled refund is in the ledger with its amount and what it returns of the fee, to a wallet if one paid"
    )
    return Verdict(invariant="I6", title=title, looked_at=len(refunds), broken=tuple(broken))


def _fees_kept(engines: Mapping[str, Engine]) -> Verdict:
    """What the ledger has on the account of fees, payment by payment, is what payments says was taken and not returned: by refunds,
    because a dispute returns nothing of it, however it ends."""
    statement = """
        SELECT split_part(t.fact_id, ':', 1) AS fact, sum(e.amount_minor) AS amount FROM entries e
        JOIN accounts a ON a.bucket = e.bucket AND a.id = e.account_id AND a.kind = 'PLATFORM_FEES'
        JOIN transfers t ON t.bucket = e.transfer_bucket AND t.id = e.transfer_id
        WHERE t.fact_id LIKE 'cap_%' OR t.fact_id LIKE 'ref_%' OR t.fact_id LIKE 'dsp_%' GROUP BY 1
        """
    with engines["wallets"].connect() as conn:
        kept = {row.fact: int(row.amount) for row in conn.execute(text(statement))}
    # A refund that was just created may still be on its way to the ledger, and its payment's fee with it.
    statement = """
        SELECT p.id, f.facts, f.kept FROM payments p
        JOIN LATERAL (
            SELECT array_agg(id) AS facts, sum(amount) AS kept FROM (
                SELECT c.id, c.fee_minor AS amount FROM captures c WHERE c.owner_id = p.owner_id AND c.payment_id = p.id
                UNION ALL
                SELECT r.id, CASE WHEN r.state IN ('FAILED', 'CANCELED') THEN 0 ELSE -r.fee_returned_minor END FROM refunds r
                WHERE r.owner_id = p.owner_id AND r.payment_id = p.id
                UNION ALL
                SELECT d.id, 0 FROM disputes d WHERE d.owner_id = p.owner_id AND d.payment_id = p.id) parts
            ) f ON f.facts IS NOT NULL
        WHERE NOT EXISTS (SELECT 1 FROM refunds r
            WHERE r.owner_id = p.owner_id AND r.payment_id = p.id AND r.state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED'))
        """
    with engines["payments"].connect() as conn:
        payments = conn.execute(text(statement)).all()
    broken = []
    for row in payments:
        ledgers = sum(kept.get(fact, 0) for fact in row.facts)
        if ledgers != row.kept:
            broken.append((row.id, f"fees of {row.kept} taken and not returned, the ledger kept {ledgers}"))
    title = "what is kept of each payment is what its captures paid less what its refunds returned"
    return Verdict(invariant="I6", title=title, looked_at=len(payments), broken=tuple(broken))


def _disputes_held(engines: Mapping[str, Engine]) -> Verdict:
    """What is held from each owner is what their open chargebacks hold, and a stage that ended has ended as its dispute says."""
    held_for = """
        SELECT owner_id, at_risk_currency, sum(at_risk_minor) FROM disputes
        WHERE stage <> 'INQUIRY' AND state IN ('NEEDS_RESPONSE', 'UNDER_REVIEW', 'ACCEPTED')
        GROUP BY owner_id, at_risk_currency
        """
    balances = """
        SELECT owner_id, currency, credits_posted - debits_posted FROM accounts
        WHERE kind IN ('MERCHANT_DISPUTED', 'CUSTOMER_DISPUTED') AND credits_posted <> debits_posted
        """
    ended = """
        SELECT id, stage, CASE state WHEN 'WON' THEN 'dispute.won' ELSE 'dispute.lost' END AS code FROM disputes
        WHERE stage <> 'INQUIRY' AND state IN ('WON', 'LOST', 'PREVENTED')
        """
    ends = "SELECT fact_id, code FROM transfers WHERE code IN ('dispute.won', 'dispute.lost')"
    with engines["payments"].connect() as conn:
        open_sums = {(row[0], row[1]): int(row[2]) for row in conn.execute(text(held_for))}
        outcomes = {f"{row.id}:{row.stage}:ended": row.code for row in conn.execute(text(ended))}
    with engines["wallets"].connect() as conn:
        held = {(row[0], row[1]): int(row[2]) for row in conn.execute(text(balances))}
        booked = {row.fact_id: row.code for row in conn.execute(text(ends))}
    broken = [
        (
            owner,
            f"open chargebacks of {open_sums.get((owner, currency), 0)} {currency}, held {held.get((owner, currency), 0)}",
        )
        for owner, currency in sorted(open_sums.keys() | held.keys())
        if open_sums.get((owner, currency), 0) != held.get((owner, currency), 0)
    ]
    broken += [
        (fact_id, f"{code} is not in the ledger, which says {booked.get(fact_id)}")
        for fact_id, code in sorted(outcomes.items())
        if booked.get(fact_id) != code
    ]
    title = "what is held for disputes is what open chargebacks hold, and each ended as Stripe says"
    return Verdict(invariant="I6", title=title, looked_at=len(open_sums) + len(outcomes), broken=tuple(broken))


def _dispute_funds_booked(engines: Mapping[str, Engine]) -> Verdict:
    signed = """
        SELECT fact_id, sum(CASE code WHEN 'dispute.withdrawal' THEN -amount_minor WHEN 'dispute.reinstatement' THEN amount_minor
                                      ELSE 0 END) AS moved,
               sum(CASE code WHEN 'dispute.fee' THEN amount_minor WHEN 'dispute.fee_returned' THEN -amount_minor
                             ELSE 0 END) AS fee
        FROM transfers WHERE code IN ('dispute.withdrawal', 'dispute.reinstatement', 'dispute.fee', 'dispute.fee_returned')
        GROUP BY fact_id
        """
    with engines["wallets"].connect() as conn:
        booked = {row.fact_id: (int(row.moved), int(row.fee)) for row in conn.execute(text(signed))}
    with engines["payments"].connect() as conn:
        rows = conn.execute(text("SELECT id, amount_minor, fee_minor FROM dispute_movements"))
        moved = {row.id: (int(row.amount_minor), int(row.fee_minor)) for row in rows}
    broken = tuple(
        (name, f"Stripe moved {moved.get(name)}, the ledger says {booked.get(name)}")
        for name in sorted(moved.keys() | booked.keys())
        if moved.get(name) != booked.get(name)
    )
    title = "what Stripe took and gave back for disputes is in the ledger, with its fees"
    return Verdict(invariant="I6", title=title, looked_at=len(moved), broken=broken)


def _payments_netted(engines: Mapping[str, Engine]) -> Verdict:
    """Per payment, captured − refunded − disputed is what its transfers say. Where a refund is on its way to the ledger, it is not
    known yet on which side."""
    posted = _fact_sums(
        engines, f"kind IN ('POSTED', 'POST_PENDING') AND code <> 'refund.wallet' AND NOT ({_OF_RETURNED_FEES})"
    )
    from_wallets = _fact_sums(engines, "kind = 'POST_PENDING' AND fact_id LIKE 'cap_%'")
    statement = """
        SELECT p.id, p.captured_minor - p.refunded_minor - p.disputed_minor AS net,
               ARRAY(SELECT id FROM captures c WHERE c.owner_id = p.owner_id AND c.payment_id = p.id) AS captures,
               ARRAY(SELECT id FROM refunds r WHERE r.owner_id = p.owner_id AND r.payment_id = p.id
                   AND r.suspense_item_id = '') AS refunds,
               ARRAY(SELECT id FROM disputes d WHERE d.owner_id = p.owner_id AND d.payment_id = p.id) AS disputes
        FROM payments p WHERE p.captured_minor > 0 AND p.refund_pending_minor = 0
        """
    ends = _fact_sums(engines, "code = 'dispute.won'")
    with engines["payments"].connect() as conn:
        payments = conn.execute(text(statement)).all()
    broken = []
    for row in payments:
        # From a wallet the gross is one transfer and the fee another one out of it; from a card the two make up the gross.
        net = sum(from_wallets.get(name, posted.get(name, 0)) for name in row.captures)
        net -= sum(posted.get(name, 0) - posted.get(f"{name}:failed", 0) for name in row.refunds)
        for name in row.disputes:
            for stage in ("CHARGEBACK", "PRE_ARBITRATION"):
                net -= posted.get(f"{name}:{stage}", 0) - ends.get(f"{name}:{stage}:ended", 0)
        if net != row.net:
            broken.append((row.id, f"captured − refunded − disputed is {row.net}, its transfers say {net}"))
    title = "captured − refunded − disputed of each payment is what its transfers say"
    return Verdict(invariant="I7", title=title, looked_at=len(payments), broken=tuple(broken))


def _suspense_booked(engines: Mapping[str, Engine]) -> Verdict:
    with engines["wallets"].connect() as conn:
        written = conn.execute(text("SELECT fact_id, amount_minor, currency FROM transfers WHERE code = 'suspense'"))
        booked = {row.fact_id: (int(row.amount_minor), row.currency) for row in written}
        # What reconciliation keeps there, until somebody explains a line of Stripe's, is in the checks of I9.
        held = conn.execute(
            text(
                """
                SELECT a.currency, sum(CASE WHEN t.credit_account_id = a.id THEN t.amount_minor ELSE -t.amount_minor END) AS left
                FROM accounts a JOIN transfers t ON a.id IN (t.debit_account_id, t.credit_account_id)
                WHERE a.kind = 'SUSPENSE' AND t.code NOT LIKE 'bt.%' AND t.code <> 'write_off' GROUP BY 1
                """
            )
        )
        left = {row.currency: int(row.left) for row in held}
    # In suspense stays what was neither accepted nor is on its way back; a refund that failed brings it back there. One that was
    # just created may still be on its way to the ledger.
    statement = """
        SELECT i.id, i.amount_minor, i.currency, c.id IS NULL AND (r.id IS NULL OR r.state IN ('FAILED', 'CANCELED')) AS stays,
               coalesce(r.state = 'PENDING', false) AS moves
        FROM suspense_items i
        LEFT JOIN captures c ON c.owner_id = i.owner_id AND c.suspense_item_id = i.id
        LEFT JOIN refunds r ON r.owner_id = i.owner_id AND r.suspense_item_id = i.id
        """
    with engines["payments"].connect() as conn:
        found = conn.execute(text(statement)).all()
    items = {row.id: (row.amount_minor, row.currency) for row in found}
    broken = [
        (item_id, f"Stripe took {items.get(item_id)}, the ledger says {booked.get(item_id)}")
        for item_id in sorted(items.keys() | booked.keys())
        if items.get(item_id) != booked.get(item_id)
    ]
    for currency in sorted({row.currency for row in found} | left.keys()):
        stays = sum(row.amount_minor for row in found if row.currency == currency and row.stays)
        moves = sum(row.amount_minor for row in found if row.currency == currency and row.moves)
        if not stays <= left.get(currency, 0) <= stays + moves:
            broken.append((currency, f"{left.get(currency, 0)} in suspense, but {stays} stays there and {moves} moves"))
    title = "all that Stripe took unasked is in suspense until it is accepted or goes back"
    return Verdict(invariant="I6", title=title, looked_at=len(items), broken=tuple(broken))


def _nothing_unasked(engines: Mapping[str, Engine]) -> Verdict:
    facts = [name for name in _fact_sums(engines, "true") if name.startswith(("cap_", "ref_", "att_", "dsp_", "sus_"))]
    facts += _fact_sums(engines, "code LIKE 'dispute.%' AND fact_id NOT LIKE 'dsp_%'")
    tables = ("captures", "refunds", "attempts", "disputes", "dispute_movements", "suspense_items")
    statement = " UNION ALL ".join(f"SELECT id FROM {table}" for table in tables)  # fixed words
    with engines["payments"].connect() as conn:
        known = {row[0] for row in conn.execute(text(statement))}
    broken = tuple(
        (name, "is in the ledger, but payments has no such fact") for name in facts if name.split(":")[0] not in known
    )
    title = "the ledger holds no capture, refund, hold or dispute that payments does not have"
    return Verdict(invariant="I6", title=title, looked_at=len(facts), broken=broken)


def _consumed_once(engines: Mapping[str, Engine]) -> Verdict:
    with engines["eventlog"].connect() as conn:
        rows = conn.execute(
            text(
                "SELECT event_id FROM records WHERE topic = 'paymesh.payments.v1' "
                "AND (type IN ('payment.succeeded', 'payment.partially_captured', 'refund.failed') OR type LIKE 'dispute.%')"
            )
        )
        told = {row[0] for row in rows}
    with engines["wallets"].connect() as conn:
        seen = {row[0] for row in conn.execute(text("SELECT event_id FROM inbox WHERE consumer = 'wallets'"))}
    broken = tuple((event_id, "told, but not consumed") for event_id in sorted(told - seen))
    title = "every event that moves money was consumed by the ledger, once"
    return Verdict(invariant="I8", title=title, looked_at=len(told), broken=broken)
