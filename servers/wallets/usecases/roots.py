"""Publishing the roots of the ledger's periods, and proving lines by them.

A period is closed before its tree is built: from then on no batch is recorded in it, so that whoever builds the tree, and however
often, gets the same root. It is put into the object store before it is noted here: a process that dies in between is followed by
one that finds the same object there.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from servers.kernel.errors import FieldInvalid, Kind, Refusal
from servers.kernel.invariant import invariant
from servers.kernel.merkle import Tree, leaf_hash
from servers.runtime.alerts import alert
from servers.runtime.connection import Connection
from servers.runtime.db import Database
from servers.runtime.objects import Objects
from servers.wallets import chain_store
from servers.wallets.chain import Batch, Proof, ProvenLine, Root, burnt_leaf, leaf_of

FORMAT: Final = "paymesh-ledger-root/1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE: Final = 5_000
_KEPT: Final = 4
_NEWEST: Final = timedelta(microseconds=1)


class RootNotPublished(Refusal):
    """The period is not over, or has ended just now."""

    kind = Kind.PRECONDITION
    reason = "ROOT_NOT_PUBLISHED"

    def __init__(self, end_time: str) -> None:
        super().__init__(
            f"The root of this period is published once it is over, after {end_time}; ask again then, or for an earlier time.",
            metadata={"end_time": end_time},
        )


class RootDiffers(Exception):
    """The object store holds another root for a period than the tables give: one of the two was changed."""


class Roots:
    """The roots of one shard's periods."""

    def __init__(self, db: Database, objects: Objects, *, shard: str, period: timedelta) -> None:
        self._db = db
        self._objects = objects
        self._shard = shard
        self._period = period
        self._trees: OrderedDict[datetime, Tree] = OrderedDict()

    async def publish_due(self) -> int:
        """Publish the roots of all periods that are over. Returns how many. Raises ObjectStoreUnavailable, and RootDiffers."""
        published = 0
        while (period := await self._next_due()) is not None:
            await self._publish(*period)
            published += 1
        return published

    async def _next_due(self) -> tuple[Root | None, datetime, datetime] | None:
        """Return the last root, and the bounds of the next period in which something was written, if it is over."""
        async with self._db.read() as conn:
            last = await chain_store.last_root(conn, self._shard)
            first_time = await chain_store.unpublished_since(
                conn, self._shard, last.last_number if last is not None else 0
            )
        if first_time is None:
            return None
        start, end = self._around(first_time)
        # Where the length of a period was changed, the new one begins where the old one ended.
        start = max(start, last.end_time) if last is not None else start
        return (last, start, end) if end <= self._db.clock.now() else None

    async def _publish(self, last: Root | None, start: datetime, end: datetime) -> None:
        async with self._db.uow() as uow:
            await chain_store.close_period(uow.conn, self._shard, end)
        first = last.last_number + 1 if last is not None else 1
        headers = [leaf_hash(batch.header.encode()) async for batch in self._batches(first - 1, before_time=end)]
        tree = Tree(headers)
        root = Root(
            shard=self._shard,
            start_time=start,
            end_time=end,
            first_number=first,
            last_number=first + tree.size - 1,
            root=tree.root,
            object=f"ledger-roots/{self._shard}/{start:%Y%m%dT%H%M%SZ}.json",
            publish_time=self._db.clock.now(),
        )
        content = document(root, last)
        if await self._objects.put_once(root.object, content) != content:
            alert("ledger.root_differs", shard=self._shard, object=root.object, root=tree.root.hex())
            raise RootDiffers(root.object)
        async with self._db.uow() as uow:
            await chain_store.insert_root(uow.conn, root)
        self._keep(root, tree)

    async def _batches(
        self, after: int, *, before_time: datetime | None = None, last: int | None = None
    ) -> AsyncIterator[Batch]:
        while True:
            async with self._db.read() as conn:
                page = await chain_store.batches(
                    conn, self._shard, after=after, before_time=before_time, last=last, limit=_PAGE
                )
            for batch in page:
                yield batch
            if len(page) < _PAGE:
                return
            after = page[-1].number

    async def prove(self, account_id: str, time: datetime | None, *, before: int | None, limit: int) -> Proof:
        """Return an account's lines below the version `before`, in the period around `time` or in the newest that is published.
        Raises RootNotPublished, and FieldInvalid for a period in which nothing was written."""
        async with self._db.read() as conn:
            root = await self._root_of(conn, time)
            lines = await chain_store.batches_of_lines(
                conn,
                account_id,
                start_time=root.start_time,
                end_time=root.end_time,
                before=before,
                limit=limit + 1,
            )
            wanted = lines[:limit]
            batches = await chain_store.batches_by_id(conn, [batch_id for _, batch_id in wanted])
            versions = {version for version, _ in wanted}
            proven = [line for batch in batches for line in await _lines(conn, batch, account_id, versions)]
        tree = await self._tree_of(root)
        invariant(len(proven) == len(wanted), "lines without a batch", account_id=account_id, root=root.object)
        return Proof(
            root=root,
            account_id=account_id,
            batches=[(batch, tree.path(batch.number - root.first_number)) for batch in batches],
            lines=sorted(proven, key=lambda line: -line.version),
            more=len(lines) > limit,
        )

    async def _root_of(self, conn: Connection, time: datetime | None) -> Root:
        now = self._db.clock.now()
        before = time + _NEWEST if time is not None else None
        found = await chain_store.roots(conn, self._shard, before=before, limit=1)
        if found and (time is None or time < found[0].end_time):
            return found[0]
        last = await chain_store.last_root(conn, self._shard)
        if time is None or last is None or time >= last.end_time:
            raise RootNotPublished(_rfc3339(self._around(time if time is not None else now)[1]))
        raise FieldInvalid.of(
            "time",
            "nothing was written to the ledger around this time; GET /v1/ledger/roots lists the periods with a root",
        )

    async def _tree_of(self, root: Root) -> Tree:
        """Return a published period's tree; the last ones asked for are kept."""
        tree = self._trees.get(root.start_time)
        if tree is None:
            found = self._batches(root.first_number - 1, last=root.last_number)
            tree = Tree([leaf_hash(batch.header.encode()) async for batch in found])
            invariant(tree.root == root.root, "the batches are not those that were published", root=root.object)
        self._keep(root, tree)
        return tree

    def _keep(self, root: Root, tree: Tree) -> None:
        self._trees[root.start_time] = tree
        self._trees.move_to_end(root.start_time)
        while len(self._trees) > _KEPT:
            self._trees.popitem(last=False)

    def _around(self, time: datetime) -> tuple[datetime, datetime]:
        """Return the bounds of the period around an instant; periods are counted from 1970 on, in UTC."""
        start = time - (time - _EPOCH) % self._period
        return start, start + self._period


async def _lines(conn: Connection, batch: Batch, account_id: str, versions: set[int]) -> list[ProvenLine]:
    written, burnt = await chain_store.contents(conn, batch)
    leaves = [leaf_of(transfer, entry) for transfer, entry in written] + [burnt_leaf(one) for one in burnt]
    tree = Tree([leaf_hash(leaf.encode()) for leaf in leaves])
    invariant(tree.root == batch.root, "a batch is not what was written", shard=batch.shard, number=batch.number)
    return [
        ProvenLine(version=entry.version, batch=batch.number, index=index, leaf=leaves[index], path=tree.path(index))
        for index, (_, entry) in enumerate(written)
        if entry is not None and entry.account_id == account_id and entry.version in versions
    ]


def document(root: Root, previous: Root | None) -> bytes:
    """Return what is published of a root: the same bytes for whoever publishes it."""
    fields = {
        "format": FORMAT,
        "shard": root.shard,
        "start_time": _rfc3339(root.start_time),
        "end_time": _rfc3339(root.end_time),
        "first_batch": root.first_number,
        "last_batch": root.last_number,
        "root": root.root.hex(),
        "previous_root": previous.root.hex() if previous is not None else "",
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


def _rfc3339(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
