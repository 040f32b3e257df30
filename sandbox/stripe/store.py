"""Everything durable, in one SQLite file: WAL, synchronous=FULL, one transaction per request that writes."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.stripe.wire import Json

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, parent TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_parent ON objects (parent, kind);
CREATE INDEX IF NOT EXISTS objects_intent ON objects (kind, json_extract(body, '$.payment_intent'), seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (kind, json_extract(body, '$.customer'), seq);
CREATE INDEX IF NOT EXISTS objects_balance
    ON objects (json_extract(body, '$.currency'), json_extract(body, '$.available_on'), json_extract(body, '$.net'))
    WHERE kind = 'balance_transaction';
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency_origin (key TEXT PRIMARY KEY, path TEXT NOT NULL, request_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    event_id TEXT PRIMARY KEY, tries INTEGER NOT NULL, next_at REAL NOT NULL, done INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (next_at) WHERE done = 0;
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), offset_seconds INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS timers (
    object_id TEXT NOT NULL, kind TEXT NOT NULL, due INTEGER NOT NULL, PRIMARY KEY (object_id, kind));
CREATE TABLE IF NOT EXISTS contents (file TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS paid_out (transaction_id TEXT PRIMARY KEY, payout TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS paid_out_payout ON paid_out (payout);
CREATE TABLE IF NOT EXISTS set_up (payment_method TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS spent (payment_method TEXT PRIMARY KEY, attachable INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is asked for: `where` holds fixed SQL fragments, `values` what fills them."""

    kind: str
    where: Sequence[str] = ()
    values: Sequence[object] = ()
    after: int | None = None
    before: int | None = None
    limit: int = 10


class Store:
    """The sandbox's memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(folder / "stripe.sqlite", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what is inside when it raises, and let the transaction around it go on."""
        self.db.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK TO attempt")
            self.db.execute("RELEASE attempt")
            raise
        self.db.execute("RELEASE attempt")

    def put(self, body: Json, *, parent: str = "") -> Json:
        """Insert or replace an object under its id."""
        self.db.execute(
            "INSERT INTO objects (id, kind, parent, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (body["id"], body["object"], parent, json.dumps(body)),
        )
        return body

    def get(self, kind: str, identifier: str) -> Json | None:
        """Return an object, or None."""
        row = self.db.execute("SELECT body FROM objects WHERE id = ? AND kind = ?", (identifier, kind)).fetchone()
        return json.loads(row[0]) if row else None

    def parent(self, identifier: str) -> str:
        """Return what an object was stored under, or an empty string."""
        row = self.db.execute("SELECT parent FROM objects WHERE id = ?", (identifier,)).fetchone()
        return str(row[0]) if row else ""

    def newest(self, kind: str, *, parent: str = "") -> list[Json]:
        """Return all objects of a kind (and parent), newest first."""
        rows = self.db.execute(
            "SELECT body FROM objects WHERE kind = ? AND (? = '' OR parent = ?) ORDER BY seq DESC",
            (kind, parent, parent),
        )
        return [json.loads(row[0]) for row in rows]

    def position(self, kind: str, identifier: str) -> int | None:
        """Return an object's place in the lists of its kind, or None."""
        row = self.db.execute("SELECT seq FROM objects WHERE id = ? AND kind = ?", (identifier, kind)).fetchone()
        return int(row[0]) if row else None

    def page(self, page: Page) -> tuple[list[Json], bool]:
        """Return one page, newest first, and whether there is more in the direction of travel."""
        where, values = ["kind = ?", *page.where], [page.kind, *page.values]
        upwards = page.before is not None
        cursor = page.before if upwards else page.after
        if cursor is not None:
            where.append("seq > ?" if upwards else "seq < ?")
            values.append(cursor)
        rows = self.db.execute(
            f"SELECT body FROM objects WHERE {' AND '.join(where)} ORDER BY seq {'ASC' if upwards else 'DESC'} LIMIT ?",
            (*values, page.limit + 1),
        ).fetchall()
        bodies = [json.loads(row[0]) for row in rows[: page.limit]]
        return bodies[::-1] if upwards else bodies, len(rows) > page.limit

    def balance(self, now: int) -> list[tuple[str, bool, int]]:
        """Return the sums of balance transactions: currency, whether available, net."""
        rows = self.db.execute(
            "SELECT json_extract(body, '$.currency'), json_extract(body, '$.available_on') <= ?, "
            "SUM(json_extract(body, '$.net')) FROM objects WHERE kind = 'balance_transaction' GROUP BY 1, 2 ORDER BY 1",
            (now,),
        )
        return [(str(currency), bool(available), int(net)) for currency, available, net in rows]

    def not_paid_out(self, currency: str, now: int) -> list[str]:
        """Return the balance transactions that are available and went with no automatic payout."""
        rows = self.db.execute(
            "SELECT id FROM objects WHERE kind = 'balance_transaction' AND json_extract(body, '$.currency') = ? "
            "AND json_extract(body, '$.available_on') <= ? AND id NOT IN (SELECT transaction_id FROM paid_out) ORDER BY seq",
            (currency, now),
        )
        return [str(row[0]) for row in rows]

    def transactions(self) -> list[tuple[Json, str | None]]:
        """Return all balance transactions, oldest first, each with the automatic payout that it went with."""
        rows = self.db.execute(
            "SELECT body, payout FROM objects LEFT JOIN paid_out ON transaction_id = id "
            "WHERE kind = 'balance_transaction' ORDER BY seq"
        )
        return [(json.loads(body), payout) for body, payout in rows]

    def paid_charges(self) -> dict[str, int]:
        """Return how many charges succeeded, by payment intent; 0 where none of its charges did."""
        rows = self.db.execute(
            "SELECT json_extract(body, '$.payment_intent'), SUM(json_extract(body, '$.paid')) FROM objects "
            "WHERE kind = 'charge' GROUP BY 1"
        )
        return {str(intent): int(paid) for intent, paid in rows}

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are."""
        row = self.db.execute("SELECT COUNT(*) FROM objects WHERE kind = ?", (kind,)).fetchone()
        return int(row[0])


def new_id(prefix: str) -> str:
    """Return an id in Stripe's style."""
    return f"{prefix}_1{secrets.token_hex(12)}"
