"""The invariants as data: a statement that counts what was looked at, and one that returns every row in which it does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One statement about one database. `broken` returns (key, detail) rows; none means that it holds."""

    invariant: str
    title: str
    database: str
    count: str
    broken: str


def _told(database: str, table: str, title: str, *, key: str = "r.owner_id, r.id") -> Check:
    """Return the check that each version of each row of a table is told by one outbox row; `key` is the table's."""
    return Check(
        invariant="I8",
        title=f"every version of every {title} is told by one outbox row",
        database=database,
        count=f"SELECT coalesce(sum(version), 0) FROM {table}",
        broken=f"""
            SELECT r.id, format('version %s, %s events', r.version, count(o.event_id)) FROM {table} r
            LEFT JOIN (SELECT subject, event_id FROM outbox UNION ALL SELECT subject, event_id FROM outbox_archive) o
                ON o.subject = r.id
            GROUP BY {key}, r.version HAVING count(o.event_id) <> r.version""",
    )


_ENTRY_KINDS: Final = "t.kind IN ('POSTED', 'POST_PENDING')"

WALLETS: Final = (
    Check(
        invariant="I1",
        title="each posted transfer has one debit and one credit of its amount",
        database="wallets",
        count=f"SELECT count(*) FROM transfers t WHERE {_ENTRY_KINDS}",
        broken=f"""
            SELECT t.id, format('amount %s, debits %s, credits %s', t.amount_minor, d.n, c.n)
            FROM transfers t
            LEFT JOIN LATERAL (SELECT count(*) AS n FROM entries e WHERE e.transfer_id = t.id
                AND e.account_id = t.debit_account_id AND e.amount_minor = -t.amount_minor) d ON true
            LEFT JOIN LATERAL (SELECT count(*) AS n FROM entries e WHERE e.transfer_id = t.id
                AND e.account_id = t.credit_account_id AND e.amount_minor = t.amount_minor) c ON true
            LEFT JOIN LATERAL (SELECT count(*) AS n FROM entries e WHERE e.transfer_id = t.id) a ON true
            WHERE a.n <> CASE WHEN {_ENTRY_KINDS} THEN 2 ELSE 0 END OR ({_ENTRY_KINDS} AND (d.n <> 1 OR c.n <> 1))""",
    ),
    Check(
        invariant="I1",
        title="the entries of each currency sum to zero",
        database="wallets",
        count="SELECT count(*) FROM entries",
        broken="""
            SELECT a.currency, format('sum %s', sum(e.amount_minor)) FROM entries e
            JOIN accounts a ON a.bucket = e.bucket AND a.id = e.account_id
            GROUP BY a.currency HAVING sum(e.amount_minor) <> 0""",
    ),
    Check(
        invariant="I1",
        title="every entry belongs to a transfer",
        database="wallets",
        count="SELECT count(*) FROM entries",
        broken="""
            SELECT e.account_id, format('version %s names %s', e.account_version, e.transfer_id) FROM entries e
            LEFT JOIN transfers t ON t.bucket = e.transfer_bucket AND t.id = e.transfer_id WHERE t.id IS NULL""",
    ),
    Check(
        invariant="I2",
        title="each account's posted sums equal its entries and its last balance",
        database="wallets",
        count="SELECT count(*) FROM accounts",
        broken="""
            SELECT a.id, format('credits %s debits %s version %s; entries say %s, %s, %s; last balance %s',
                a.credits_posted, a.debits_posted, a.version, coalesce(s.credits, 0), coalesce(s.debits, 0),
                coalesce(s.versions, 0), l.balance_after)
            FROM accounts a
            LEFT JOIN (SELECT bucket, account_id, count(*) AS versions,
                    coalesce(sum(amount_minor) FILTER (WHERE amount_minor > 0), 0) AS credits,
                    coalesce(-sum(amount_minor) FILTER (WHERE amount_minor < 0), 0) AS debits
                FROM entries GROUP BY bucket, account_id) s ON s.bucket = a.bucket AND s.account_id = a.id
            LEFT JOIN entries l ON l.bucket = a.bucket AND l.account_id = a.id AND l.account_version = a.version
            WHERE a.credits_posted <> coalesce(s.credits, 0) OR a.debits_posted <> coalesce(s.debits, 0)
               OR a.version <> coalesce(s.versions, 0)
               OR (a.version > 0 AND l.balance_after IS DISTINCT FROM a.credits_posted - a.debits_posted)""",
    ),
    Check(
        invariant="I2",
        title="each account's pending sums equal its open holds",
        database="wallets",
        count="SELECT count(*) FROM accounts",
        broken="""
            WITH held AS (
                SELECT t.debit_account_id AS account_id, p.remaining_minor AS debit, 0 AS credit
                FROM pendings p JOIN transfers t ON t.bucket = p.bucket AND t.id = p.id
                UNION ALL
                SELECT t.credit_account_id, 0, p.remaining_minor
                FROM pendings p JOIN transfers t ON t.bucket = p.bucket AND t.id = p.id)
            SELECT a.id, format('pending debits %s credits %s; holds say %s, %s', a.debits_pending, a.credits_pending,
                coalesce(sum(h.debit), 0), coalesce(sum(h.credit), 0))
            FROM accounts a LEFT JOIN held h ON h.account_id = a.id GROUP BY a.bucket, a.id
            HAVING a.debits_pending <> coalesce(sum(h.debit), 0) OR a.credits_pending <> coalesce(sum(h.credit), 0)""",
    ),
    Check(
        invariant="I3",
        title="versions run 1, 2, 3… and each balance follows from the one before",
        database="wallets",
        count="SELECT count(*) FROM entries",
        broken="""
            SELECT account_id, format('version %s after %s, balance %s after %s plus %s', account_version, before_version,
                balance_after, before_balance, amount_minor)
            FROM (SELECT account_id, account_version, balance_after, amount_minor,
                    coalesce(lag(account_version) OVER w, 0) AS before_version,
                    coalesce(lag(balance_after) OVER w, 0) AS before_balance
                FROM entries WINDOW w AS (PARTITION BY bucket, account_id ORDER BY account_version)) e
            WHERE account_version <> before_version + 1 OR balance_after <> before_balance + amount_minor""",
    ),
    Check(
        invariant="I4",
        title="no unforced debit leaves a limited account below zero",
        database="wallets",
        count="SELECT count(*) FROM entries WHERE amount_minor < 0 AND NOT forced",
        broken="""
            SELECT e.account_id, format('version %s leaves %s', e.account_version, e.available_after) FROM entries e
            JOIN accounts a ON a.bucket = e.bucket AND a.id = e.account_id
            WHERE e.amount_minor < 0 AND NOT e.forced AND e.available_after < 0
              AND (a.kind LIKE 'MERCHANT_%' OR a.kind LIKE 'CUSTOMER_%')""",
    ),
    Check(
        invariant="I12",
        title="no open hold is older than its expiry and two sweeps",
        database="wallets",
        count="SELECT count(*) FROM pendings WHERE NOT closed",
        broken="""
            SELECT id, format('expired %s, holds %s', expire_time, remaining_minor) FROM pendings
            WHERE NOT closed AND expire_time < clock_timestamp() - interval '15 seconds'""",
    ),
)
SETTLEMENT: Final = (
    Check(
        invariant="I2",
        title="each merchant's pending balance is what its open lots hold",
        database="wallets",
        count="SELECT count(*) FROM lots",
        broken="""
            SELECT coalesce(a.id, l.merchant_id),
                   format('balance %s %s, lots %s', a.balance, coalesce(a.currency, l.currency), l.held)
            FROM (SELECT id, owner_id, currency, credits_posted - debits_posted AS balance FROM accounts
                  WHERE kind = 'MERCHANT_PENDING') a
            FULL JOIN (SELECT merchant_id, currency,
                              sum(net_minor + returned_minor - taken_minor) FILTER (WHERE NOT settled) AS held FROM lots
                       GROUP BY merchant_id, currency) l
                ON l.merchant_id = a.owner_id AND l.currency = a.currency
            WHERE coalesce(a.balance, 0) <> coalesce(l.held, 0)""",
    ),
)
USERS_WALLETS: Final = (
    Check(
        invariant="I2",
        title="each wallet has its account, in its currency",
        database="wallets",
        count="SELECT count(*) FROM wallets",
        broken="""
            SELECT w.id, format('%s accounts of %s in %s', count(a.id), w.owner_id, w.currency) FROM wallets w
            LEFT JOIN accounts a ON a.owner_id = w.owner_id AND a.kind = 'CUSTOMER_WALLET' AND a.currency = w.currency
            GROUP BY w.owner_id, w.id, w.currency HAVING count(a.id) <> 1""",
    ),
    Check(
        invariant="I5",
        title="a top-up that succeeded put its amount into its wallet once; one that failed, never",
        database="wallets",
        count="SELECT count(*) FROM top_ups",
        # While a top-up is open its money may be there already: it is booked before it is said.
        broken="""
            WITH booked AS (
                SELECT substr(t.code, length('top_up.') + 1) AS top_up_id, count(*) AS n, min(t.amount_minor) AS amount_minor,
                       min(a.owner_id) AS owner_id, min(a.currency) AS currency
                FROM transfers t JOIN accounts a ON a.id = t.credit_account_id AND a.kind = 'CUSTOMER_WALLET'
                WHERE t.code LIKE 'top_up.%' GROUP BY t.code)
            SELECT coalesce(u.id, b.top_up_id), format('%s of %s %s for %s; booked %s times, %s %s for %s', u.state,
                u.amount_minor, u.currency, u.owner_id, coalesce(b.n, 0), b.amount_minor, b.currency, b.owner_id)
            FROM top_ups u FULL JOIN booked b ON b.top_up_id = u.id
            WHERE u.id IS NULL OR (u.state = 'SUCCEEDED' AND b.n IS NULL) OR (u.state = 'FAILED' AND b.n IS NOT NULL)
               OR (b.n IS NOT NULL AND (b.n, b.amount_minor, b.owner_id, b.currency)
                   IS DISTINCT FROM (1, u.amount_minor, u.owner_id, u.currency))""",
    ),
    Check(
        invariant="I5",
        title="no id of the ledger is both written and burnt",
        database="wallets",
        count="SELECT count(*) FROM burnt",
        broken="SELECT id, 'written and burnt' FROM burnt JOIN transfers USING (bucket, id)",
    ),
    Check(
        invariant="I6",
        title="no top-up is open without a call that somebody looks into",
        database="wallets",
        count="SELECT count(*) FROM top_ups WHERE state IN ('PENDING', 'REQUIRES_ACTION')",
        broken="""
            SELECT u.id, u.state FROM top_ups u
            WHERE u.state IN ('PENDING', 'REQUIRES_ACTION') AND NOT EXISTS (
                SELECT 1 FROM outbound_calls o WHERE o.target = u.id
                  AND o.state IN ('CREATED', 'UNKNOWN', 'PENDING', 'NEEDS_OPERATOR'))""",
    ),
    *(_told("wallets", table, f"one of {table}") for table in ("wallets", "top_ups")),
)
DISPUTES: Final = (
    Check(
        invariant="I7",
        title="what is disputed is what chargebacks that are not won may cost; refunded + pending + disputed − over ≤ captured",
        database="payments",
        count="SELECT count(*) FROM disputes",
        broken="""
            SELECT p.id, format('disputed %s (%s), open %s (%s), over %s; captured %s, refunded %s, pending %s', p.disputed_minor,
                d.disputed, p.open_chargebacks, d.open, p.over_exposure_minor, p.captured_minor, p.refunded_minor,
                p.refund_pending_minor)
            FROM payments p
            LEFT JOIN LATERAL (SELECT coalesce(sum(at_risk_minor) FILTER (WHERE state <> 'WON'), 0) AS disputed,
                    count(*) FILTER (WHERE state IN ('NEEDS_RESPONSE', 'UNDER_REVIEW', 'ACCEPTED')) AS open FROM disputes d
                WHERE d.owner_id = p.owner_id AND d.payment_id = p.id AND d.stage <> 'INQUIRY') d ON true
            WHERE p.disputed_minor <> d.disputed OR p.open_chargebacks <> d.open
               OR p.refunded_minor + p.refund_pending_minor + p.disputed_minor - p.over_exposure_minor > p.captured_minor
               OR (p.over_exposure_minor > 0
                   AND p.refunded_minor + p.refund_pending_minor + p.disputed_minor - p.over_exposure_minor <> p.captured_minor)""",
    ),
    Check(
        invariant="I6",
        title="no dispute is being accepted without a call that somebody looks into",
        database="payments",
        count="SELECT count(*) FROM disputes WHERE accepting",
        broken="""
            SELECT d.id, d.state FROM disputes d WHERE d.accepting AND NOT EXISTS (
                SELECT 1 FROM outbound_calls o WHERE o.target = d.id
                  AND o.state IN ('CREATED', 'UNKNOWN', 'PENDING', 'NEEDS_OPERATOR'))""",
    ),
    _told("payments", "disputes", "dispute"),
)
PAYMENTS: Final = (
    Check(
        invariant="I5",
        title="a payment has one successful attempt if it was authorized, else none, and captures only if money was taken",
        database="payments",
        count="SELECT count(*) FROM payments",
        broken="""
            SELECT p.id, format('%s with %s successful attempts and %s captures', p.state, a.n, c.n) FROM payments p
            LEFT JOIN LATERAL (SELECT count(*) AS n FROM attempts a WHERE a.owner_id = p.owner_id
                AND a.payment_id = p.id AND a.state = 'SUCCEEDED') a ON true
            LEFT JOIN LATERAL (SELECT count(*) AS n FROM captures c WHERE c.owner_id = p.owner_id
                AND c.payment_id = p.id) c ON true
            WHERE a.n > 1
               OR (p.state IN ('SUCCEEDED', 'PARTIALLY_CAPTURED', 'REQUIRES_CAPTURE', 'EXPIRED') AND a.n <> 1)
               OR (p.state IN ('REQUIRES_PAYMENT_METHOD', 'REQUIRES_CONFIRMATION', 'REQUIRES_ACTION', 'PROCESSING') AND a.n <> 0)
               OR (p.state <> 'CONFLICTED' AND (c.n > 0) <> (p.state IN ('SUCCEEDED', 'PARTIALLY_CAPTURED')))""",
    ),
    Check(
        invariant="I5",
        title="each key of an outside call has one record, each charge one attempt",
        database="payments",
        count="SELECT count(*) FROM outbound_calls",
        broken="""
            SELECT key, format('%s records of %s', count(*), verb) FROM outbound_calls GROUP BY verb, key HAVING count(*) > 1
            UNION ALL
            SELECT charge_id, format('%s attempts', count(*)) FROM attempts WHERE charge_id <> ''
            GROUP BY charge_id HAVING count(*) > 1""",
    ),
    Check(
        invariant="I7",
        title="captured ≤ amount and what was accepted above it; refunded + pending ≤ captured; counters are the sums",
        database="payments",
        count="SELECT count(*) FROM payments",
        broken="""
            SELECT p.id, format('captured %s (%s), refunded %s (%s), pending %s (%s)', p.captured_minor, c.captured,
                p.refunded_minor, r.refunded, p.refund_pending_minor, r.pending)
            FROM payments p
            LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS captured FROM captures c
                WHERE c.owner_id = p.owner_id AND c.payment_id = p.id) c ON true
            LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor) FILTER (WHERE state = 'SUCCEEDED'), 0) AS refunded,
                    coalesce(sum(amount_minor) FILTER (WHERE state IN ('PENDING', 'REQUIRES_ACTION')), 0) AS pending FROM refunds r
                WHERE r.owner_id = p.owner_id AND r.payment_id = p.id AND r.suspense_item_id = '') r ON true
            WHERE p.captured_minor > p.amount_minor + p.overcapture_minor
               OR p.refunded_minor + p.refund_pending_minor > p.captured_minor
               OR p.captured_minor <> c.captured OR p.refunded_minor <> r.refunded
               OR p.refund_pending_minor <> r.pending""",
    ),
    Check(
        invariant="I7",
        title="capturable + pending + captured ≤ amount; what is pending is what open captures ask for",
        database="payments",
        count="SELECT count(*) FROM payments WHERE capture_method = 'MANUAL'",
        broken="""
            SELECT p.id, format('of %s: capturable %s, pending %s (%s), captured %s', p.amount_minor, p.capturable_minor,
                p.capture_pending_minor, o.asked, p.captured_minor)
            FROM payments p
            LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS asked FROM operations o
                WHERE o.owner_id = p.owner_id AND o.payment_id = p.id AND o.kind = 'CAPTURE'
                  AND o.state IN ('CREATED', 'UNKNOWN', 'NEEDS_OPERATOR')) o ON true
            WHERE p.capturable_minor + p.capture_pending_minor + p.captured_minor > p.amount_minor + p.overcapture_minor
               OR p.capture_pending_minor <> o.asked""",
    ),
    *DISPUTES,
    Check(
        invariant="I7",
        title="what is in suspense is accepted or goes back at the most once, in full; what came after the end goes back",
        database="payments",
        count="SELECT count(*) FROM suspense_items",
        broken="""
            SELECT i.id, format('%s %s %s, captured %s, refunded %s', i.cause, i.amount_minor, i.currency, c.amount_minor,
                r.amount_minor)
            FROM suspense_items i
            LEFT JOIN captures c ON c.owner_id = i.owner_id AND c.suspense_item_id = i.id
            LEFT JOIN refunds r ON r.owner_id = i.owner_id AND r.suspense_item_id = i.id
            WHERE (c.id IS NOT NULL AND r.id IS NOT NULL) OR (i.cause = 'LATE_CAPTURE' AND r.id IS NULL)
               OR (c.amount_minor, c.currency) <> (i.amount_minor, i.currency)
               OR (r.amount_minor, r.currency) <> (i.amount_minor, i.currency)""",
    ),
    Check(
        invariant="I7",
        title="no payment pays more fees than was captured, and no refunds return more of them than is returnable",
        database="payments",
        count="SELECT count(*) FROM captures",
        broken="""
            SELECT c.payment_id, format('captured %s, fees %s, of them returnable %s, returned %s', c.captured, c.fees,
                c.returnable, r.returned)
            FROM (SELECT owner_id, payment_id, sum(amount_minor) AS captured, sum(fee_minor) AS fees,
                    coalesce(sum(fee_minor) FILTER (WHERE fee_refund = 'RETURNED'), 0) AS returnable
                FROM captures GROUP BY owner_id, payment_id) c
            LEFT JOIN LATERAL (SELECT coalesce(sum(fee_returned_minor), 0) AS returned FROM refunds r
                WHERE r.owner_id = c.owner_id AND r.payment_id = c.payment_id
                  AND r.state NOT IN ('FAILED', 'CANCELED')) r ON true
            WHERE c.fees > c.captured OR r.returned > c.returnable""",
    ),
    Check(
        invariant="I7",
        title="a capture under a merchant's own plan was made after that version was in force, and has its terms",
        database="payments",
        count="SELECT count(*) FROM fee_plans",
        broken="""
            SELECT c.id, format('plan %s of %s, in force %s, captured %s', c.fee_plan_version, c.owner_id, f.effective_time,
                c.capture_time)
            FROM captures c LEFT JOIN fee_plans f ON f.merchant_id = c.owner_id AND 'v' || f.number = c.fee_plan_version
            WHERE c.fee_plan_version ~ '^v[0-9]+$' AND (f.number IS NULL OR f.effective_time > c.capture_time
                OR (f.fee_refund, f.settlement_delay_seconds)
                    IS DISTINCT FROM (c.fee_refund, c.settlement_delay_seconds))""",
    ),
    _told("payments", "payments", "payment"),
    _told("payments", "refunds", "refund"),
    *(_told("payments", table, f"one of {table}") for table in ("setup_intents", "mandates")),
    Check(
        invariant="I8",
        title="every version of a merchant's fee plan is told by one outbox row, and comes after the one before",
        database="payments",
        count="SELECT count(*) FROM fee_plans",
        broken="""
            SELECT f.merchant_id, format('version %s of %s, %s events', f.number, f.versions, o.events)
            FROM (SELECT merchant_id, max(number) AS number, count(*) AS versions FROM fee_plans GROUP BY merchant_id) f
            LEFT JOIN LATERAL (SELECT count(*) AS events FROM (
                    SELECT subject FROM outbox UNION ALL SELECT subject FROM outbox_archive) told
                WHERE told.subject = f.merchant_id) o ON true
            WHERE f.number <> f.versions OR o.events <> f.versions""",
    ),
)
RECONCILIATION: Final = (
    Check(
        invariant="I9",
        title="no difference to Stripe's books is open",
        database="payments",
        count="SELECT count(*) FROM reconciliation_items",
        broken="""
            SELECT id, format('%s %s of %s: expected %s %s, Stripe has %s %s', state, break_type,
                coalesce(nullif(source_id, ''), stripe_source_id), expected_minor, expected_currency, actual_minor,
                actual_currency)
            FROM reconciliation_items WHERE state IN ('MISMATCH', 'MISSING', 'UNEXPECTED')""",
    ),
    Check(
        invariant="I9",
        title="what was matched by itself agrees with the lines that arrived for it",
        database="payments",
        count="SELECT count(*) FROM reconciliation_items WHERE match_mode = 'AUTO'",
        broken="""
            SELECT i.id, format('expected %s %s, actual %s %s, lines %s', i.expected_minor, i.expected_currency,
                i.actual_minor, i.actual_currency, l.sum)
            FROM reconciliation_items i
            LEFT JOIN LATERAL (SELECT sum(amount_minor) AS sum FROM balance_transactions b WHERE b.item_id = i.id) l ON true
            WHERE i.match_mode = 'AUTO' AND (l.sum IS DISTINCT FROM i.actual_minor
                OR (i.expected_currency = i.actual_currency AND i.expected_minor IS DISTINCT FROM i.actual_minor))""",
    ),
    Check(
        invariant="I9",
        title="Stripe's balance, when it rested last, was the sum of its lines",
        database="payments",
        count="SELECT count(*) FROM reconciliation_progress WHERE stripe_balance IS NOT NULL",
        broken="""
            SELECT k.currency, format('balance %s, lines %s, before the first %s', p.stripe_balance ->> k.currency,
                p.mirrored_balance ->> k.currency, p.baseline ->> k.currency)
            FROM reconciliation_progress p,
                 LATERAL (SELECT jsonb_object_keys(p.stripe_balance || p.mirrored_balance || p.baseline) AS currency) k
            WHERE coalesce(CAST(p.stripe_balance ->> k.currency AS bigint), 0)
               <> coalesce(CAST(p.mirrored_balance ->> k.currency AS bigint), 0)
                + coalesce(CAST(p.baseline ->> k.currency AS bigint), 0)""",
    ),
    _told("payments", "reconciliation_items", "reconciliation item"),
)
IDENTITY: Final = tuple(
    _told("identity", table, f"one of {table}", key="r.id")
    for table in ("users", "sessions", "merchants", "api_keys", "invitations", "staff")
)
NOTIFICATIONS: Final = (
    Check(
        invariant="I8",
        title="every mail that was sent or failed is told by one outbox row",
        database="notifications",
        count="SELECT count(*) FROM emails",
        broken="""
            SELECT e.id, format('version %s, %s events', e.version, count(o.event_id)) FROM emails e
            LEFT JOIN (SELECT subject, event_id FROM outbox UNION ALL SELECT subject, event_id FROM outbox_archive) o
                ON o.subject = e.id
            GROUP BY e.id, e.version HAVING count(o.event_id) <> e.version - 1""",
    ),
)
CHECKS: Final = (*WALLETS, *SETTLEMENT, *USERS_WALLETS, *PAYMENTS, *RECONCILIATION, *IDENTITY, *NOTIFICATIONS)
