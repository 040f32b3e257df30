"""Everything durable, in one SQLite file: WAL, synchronous=FULL, one transaction per request."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.stripe.wire import Json

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, parent TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_parent ON objects (parent, kind);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    event_id TEXT PRIMARY KEY, tries INTEGER NOT NULL, next_at REAL NOT NULL, done INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), offset_seconds INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (path TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


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

    def newest(self, kind: str, *, parent: str = "") -> list[Json]:
        """Return all objects of a kind (and parent), newest first."""
        rows = self.db.execute(
            "SELECT body FROM objects WHERE kind = ? AND (? = '' OR parent = ?) ORDER BY seq DESC",
            (kind, parent, parent),
        )
        return [json.loads(row[0]) for row in rows]

    def count_request(self, path: str) -> None:
        """Count a request, for `/_sandbox/stats`."""
        self.db.execute(
            "INSERT INTO requests VALUES (?, 1) ON CONFLICT (path) DO UPDATE SET count = count + 1", (path,)
        )


def new_id(prefix: str) -> str:
    """Return an id in Stripe's style."""
    return f"{prefix}_1{secrets.token_hex(12)}"
