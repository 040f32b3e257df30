"""What makes tampering evident: each batch's lines hashed into one root, each root linked to the batch before with a key.

The format is public (docs/verify.md): who has a line and its proof needs none of our code to check it. `servers/audit` builds the
same from the tables in SQL, and a test compares the two. Without the key nobody can write a link, the superuser of the database
included.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from servers.kernel.merkle import leaf_hash, root_of
from servers.wallets.domain import Entry, Sheet, Transfer

GENESIS: Final = bytes(32)
"""The link before the first."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root over the batches of a period [start_time, end_time), as it was published."""

    shard: str
    start_time: datetime
    end_time: datetime
    first_number: int
    last_number: int
    root: bytes
    object: str
    """Where it stands in the object store."""
    publish_time: datetime

    @property
    def batches(self) -> int:
        """How many batches it covers: the leaves of its tree."""
        return self.last_number - self.first_number + 1


class ChainKeys:
    """The keys of the chain: the first links new batches, all of them check old ones. Each is 32 bytes."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        if not self._keys or any(len(key) != 32 for key in self._keys.values()):
            raise ValueError(
                "the ledger's chain needs keys of 32 bytes in base64, with commas between, the newest first"
            )
        self.current = next(iter(self._keys))

    def link(self, before: bytes, header: str) -> bytes:
        """Return the link of a new batch with this header, behind the link `before`."""
        return hmac.digest(self._keys[self.current], before + header.encode(), "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a shard's chain ends. Whoever holds its row's lock writes the next batch."""

    number: int
    link: bytes
    not_before: datetime
    """No later batch may be recorded before this: record times never run backwards along the chain, and no day is written to
    whose root is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of a shard's chain."""

    shard: str
    number: int
    id: str
    record_time: datetime
    leaves: int
    root: bytes
    key_id: str
    link: bytes

    @property
    def header(self) -> str:
        """What is linked, and is a leaf of the day's tree."""
        return header_of(self.shard, self.number, self.id, self.record_time, self.leaves, self.root)


def keys_of(text: str) -> ChainKeys:
    """Return the keys that a setting holds. Raises ValueError."""
    return ChainKeys(base64.b64decode(key.strip(), validate=True) for key in text.split(",") if key.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenLine:
    """A line's leaf with its path to its batch's root."""

    version: int
    batch: int
    index: int
    leaf: str
    path: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Lines of one account in one period, the newest first, with what leads to its root."""

    root: Root
    account_id: str
    batches: list[tuple[Batch, list[bytes]]]
    lines: list[ProvenLine]
    more: bool


def next_batch(keys: ChainKeys, head: Head, sheet: Sheet, *, shard: str, batch_id: str) -> Batch:
    """Return the batch that a sheet is, behind `head`."""
    hashes = [leaf_hash(leaf.encode()) for leaf in leaves_of(sheet)]
    root, number = root_of(hashes), head.number + 1
    header = header_of(shard, number, batch_id, sheet.now, len(hashes), root)
    return Batch(
        shard=shard,
        number=number,
        id=batch_id,
        record_time=sheet.now,
        leaves=len(hashes),
        root=root,
        key_id=keys.current,
        link=keys.link(head.link, header),
    )


def key_id(key: bytes) -> str:
    """Return the name under which a key is noted: the first characters of its hash."""
    return hashlib.sha256(key).hexdigest()[:16]


def header_of(shard: str, number: int, batch_id: str, record_time: datetime, leaves: int, root: bytes) -> str:
    """Return a batch's header."""
    return f"batch\n{shard}\n{number}\n{batch_id}\n{_micros(record_time)}\n{leaves}\n{root.hex()}"


def leaves_of(sheet: Sheet) -> list[str]:
    """Return a batch's leaves in their order: by transfer id, the debit first; then the ids that were burnt."""
    entries: dict[str, list[Entry]] = {}
    for entry in sheet.entries:  # the debit was entered first
        entries.setdefault(entry.transfer_id, []).append(entry)
    leaves = []
    for transfer in sorted(sheet.written, key=lambda one: one.id):
        text = leaf_of(transfer)
        lines = entries.get(transfer.id)
        leaves += [f"{text}\n{_line(entry)}" for entry in lines] if lines is not None else [text]
    return leaves + [burnt_leaf(identifier) for identifier in sorted(sheet.burns)]


def burnt_leaf(identifier: str) -> str:
    """Return the leaf of an id that was burnt."""
    return f"burnt\n{identifier}"


def leaf_of(t: Transfer, entry: Entry | None = None) -> str:
    """Return the leaf of a transfer with one of its entries, or of one that has none: a hold, and its end."""
    expire_time = "" if t.expire_time is None else _micros(t.expire_time)
    text = (
        f"transfer\n{t.id}\n{t.kind.value}\n{t.debit_account_id}\n{t.credit_account_id}\n{t.amount_minor}\n{t.currency}\n{t.code}\n"
        f"{t.fact_id}\n{t.pending_id}\n{t.forced:d}\n{expire_time}\n{_micros(t.effective_time)}"
    )
    return text if entry is None else f"{text}\n{_line(entry)}"


def _line(e: Entry) -> str:
    return f"line\n{e.account_id}\n{e.version}\n{e.amount_minor}\n{e.balance_after}\n{e.available_after}\n{e.forced:d}"


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
