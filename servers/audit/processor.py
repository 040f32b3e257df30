"""The invariants between the ledger and the processor's books."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine, text

from servers.audit.verdict import Verdict


def clearing_follows_stripe(engines: Mapping[str, Engine]) -> Verdict:
    """Line by line: what the ledger's clearing account moved by is what Stripe's balance moved by."""
    statement = """
        SELECT split_part(t.fact_id, ':', 1) AS line_id, a.currency,
               sum(CASE WHEN t.debit_account_id = a.id THEN t.amount_minor ELSE -t.amount_minor END) AS moved
        FROM transfers t
        JOIN accounts a ON a.kind = 'PROCESSOR_CLEARING' AND a.id IN (t.debit_account_id, t.credit_account_id)
        WHERE t.fact_id LIKE 'txn_%' GROUP BY 1, 2
        """
    with engines["wallets"].connect() as conn:
        moved = {(row.line_id, row.currency): int(row.moved) for row in conn.execute(text(statement))}
    statement = """
        SELECT id, amount_minor - fee_minor AS net, currency, matched_minor, matched_currency, counterpart
        FROM balance_transactions WHERE state = 'BOOKED'
        """
    with engines["payments"].connect() as conn:
        lines = list(conn.execute(text(statement)))
    broken = []
    for line in lines:
        # A capture's own fact has moved what is matched; of another currency, the line takes it away again.
        by_capture = 0 if line.counterpart else line.matched_minor
        same = line.currency == line.matched_currency
        expected = {(line.id, line.currency): line.net - (by_capture if same else 0)}
        if not same:
            expected[line.id, line.matched_currency] = -by_capture
        broken += [
            (line.id, f"Stripe moved {amount} {key[1]} beyond the capture, the ledger {moved.get(key, 0)}")
            for key, amount in expected.items()
            if moved.get(key, 0) != amount
        ]
    title = "the clearing account moved with every line of Stripe's balance"
    return Verdict(invariant="I9", title=title, looked_at=len(lines), broken=tuple(broken))


def refunds_in_transit(engines: Mapping[str, Engine]) -> Verdict:
    """What the ledger has on the way to cardholders is what was refunded and Stripe has not withdrawn from its balance yet."""
    statement = """
        SELECT currency, credits_posted - debits_posted AS minor FROM accounts WHERE kind = 'REFUNDS_IN_TRANSIT'
        """
    with engines["wallets"].connect() as conn:
        held = {row.currency: int(row.minor) for row in conn.execute(text(statement))}
    # A refund that was just created, and a line that is being booked, may be in the ledger already or not yet.
    statement = """
        SELECT currency, sum(sent) AS sent, sum(maybe_more) AS more, sum(maybe_less) AS less FROM (
            SELECT r.currency, CASE r.state WHEN 'SUCCEEDED' THEN r.amount_minor ELSE 0 END AS sent,
                   CASE WHEN r.state IN ('SUCCEEDED', 'FAILED', 'CANCELED') THEN 0 ELSE r.amount_minor END AS maybe_more,
                   0 AS maybe_less
            FROM refunds r
            LEFT JOIN attempts a ON a.owner_id = r.owner_id AND a.payment_id = r.payment_id AND a.state = 'SUCCEEDED'
            WHERE r.suspense_item_id <> '' OR coalesce(a.wallet_id, '') = ''
            UNION ALL
            SELECT matched_currency, CASE state WHEN 'BOOKED' THEN matched_minor ELSE 0 END,
                   CASE state WHEN 'JUDGED' THEN greatest(matched_minor, 0) ELSE 0 END,
                   CASE state WHEN 'JUDGED' THEN greatest(-matched_minor, 0) ELSE 0 END
            FROM balance_transactions WHERE counterpart = 'REFUNDS_IN_TRANSIT') parts
        GROUP BY currency
        """
    with engines["payments"].connect() as conn:
        expected = {row.currency: row for row in conn.execute(text(statement))}
    broken = []
    for currency in sorted(held.keys() | expected.keys()):
        row, minor = expected.get(currency), held.get(currency, 0)
        least, most = (int(row.sent - row.less), int(row.sent + row.more)) if row is not None else (0, 0)
        if not least <= minor <= most:
            between = f"{least}" if least == most else f"{least} to {most}"
            broken.append((currency, f"{minor} in transit, but {between} was refunded and is not withdrawn"))
    title = "what is on its way to cardholders was refunded and is not withdrawn yet"
    return Verdict(invariant="I9", title=title, looked_at=len(expected), broken=tuple(broken))
