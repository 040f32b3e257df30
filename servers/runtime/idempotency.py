"""Idempotency once, for all servers.

    ABSENT -> IN_PROGRESS (lease, recovery point) -> COMPLETED (answer stored)

The claim, the result and the effect share the domain's database and its transactions. The claim is one INSERT: of 64
duplicates one wins, the others wait for its commit and then see the row. A claim whose lease ended, or whose process is
dead, is taken over by the next same-key call, which resumes from the recovery point.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from servers.kernel.clock import Clock
from servers.kernel.errors import Kind, Refusal
from servers.kernel.invariant import invariant
from servers.runtime.connection import Connection
from servers.runtime.grpc_errors import status_bytes
from servers.runtime.sealed import Sealer
from servers.runtime.sql import Closing, text

LEASE_SECONDS: Final = 90  # longer than any call's deadline, so that a live call never loses its key
KEEP: Final = timedelta(hours=24)
KEEP_MONEY: Final = timedelta(days=30)
KEEP_SECRET: Final = timedelta(hours=24)
"""For how long an answer with a secret in it is kept, sealed. Its key is kept as long as any: nothing is done twice."""
EXPIRED_AT_ONCE_MAX: Final = 1000


@dataclass(frozen=True, kw_only=True)
class IdempotentRequest:
    """Who asks for what under which key, and how the result becomes the stored answer."""

    tenant: str
    method: str
    key: str | None
    fingerprint: bytes
    render: Callable[[Any], bytes]
    secret: bool = False
    money: bool = False
    rehearsal: bool = False
    """Whether the caller only wants to know what would become of it: nothing is written, whatever the outcome."""
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this very call from another holder of the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a call that won its key starts from."""

    fresh: bool
    recovery_point: str | None = None
    resource_id: str | None = None


class Replayed(Exception):
    """The key is completed: `answer` is the response's bytes, or a refusal's google.rpc.Status."""

    def __init__(self, answer: bytes, *, refused: bool) -> None:
        super().__init__("replayed")
        self.answer = answer
        self.refused = refused


class Rehearsed(Exception):
    """A rehearsal came to its end: `answer` is what the response would be, in bytes. Its transaction is rolled back."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("rehearsed")
        self.answer = answer


class IdempotencyInProgress(Refusal):
    """The first call with this key is still running."""

    kind = Kind.ABORTED
    reason = "IDEMPOTENCY_IN_PROGRESS"

    def __init__(self, key: str) -> None:
        super().__init__(
            "A call with this idempotency key is still running; ask again with the same key.",
            metadata={"key": key},
            retry_after_seconds=1.0,
        )


class IdempotencyKeyReused(Refusal):
    """The key belongs to another request."""

    kind = Kind.INVALID
    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self, key: str) -> None:
        super().__init__(
            "This idempotency key was used with another request; make a new key for a new request.",
            metadata={"key": key},
        )


class IdempotencyAnswerGone(Refusal):
    """The call was carried out, and its answer, which held a secret, is not kept any longer."""

    kind = Kind.PRECONDITION
    reason = "IDEMPOTENCY_ANSWER_GONE"

    def __init__(self, key: str, resource_id: str) -> None:
        super().__init__(
            "The call with this key was carried out more than a day ago, and its answer held a secret: read the resource.",
            metadata={"key": key, "resource_id": resource_id},
        )


_CLAIM = text(
    """
    INSERT INTO idempotency_keys (tenant, method, key, fingerprint, owner, token, lease_until, expire_time)
    VALUES (:tenant, :method, :key, :fingerprint, :owner, :token,
            clock_timestamp() + make_interval(secs => :lease), :expire_time)
    ON CONFLICT (tenant, method, key) DO NOTHING
    """
)
_LOOK = text(
    """
    SELECT fingerprint, completed, refused, answer, answer_until, recovery_point, resource_id,
           lease_until > clock_timestamp() AND NOT pg_try_advisory_xact_lock(7701, owner) AS alive
    FROM idempotency_keys WHERE tenant = :tenant AND method = :method AND key = :key FOR UPDATE
    """
)
_IS_CLAIMED = text(
    "SELECT EXISTS (SELECT 1 FROM idempotency_keys WHERE tenant = :tenant AND method = :method AND key = :key)"
)
_TAKE_OVER = text(
    """
    UPDATE idempotency_keys
    SET owner = :owner, token = :token, lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE tenant = :tenant AND method = :method AND key = :key
    """
)
_ADVANCE = text(
    """
    UPDATE idempotency_keys
    SET recovery_point = :recovery_point, resource_id = :resource_id,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE tenant = :tenant AND method = :method AND key = :key AND token = :token AND NOT completed
    """
)
_COMPLETE: Final = """
    UPDATE idempotency_keys SET completed = true, refused = %(refused)s, answer = %(answer)s, answer_until = %(until)s
    WHERE tenant = %(tenant)s AND method = %(method)s AND key = %(key)s AND NOT completed
    """
_RELEASE = text(
    """
    UPDATE idempotency_keys SET lease_until = clock_timestamp()
    WHERE tenant = :tenant AND method = :method AND key = :key AND token = :token AND NOT completed
    """
)


async def is_claimed(conn: Connection, request: IdempotentRequest) -> bool:
    """Tell whether a call has claimed the key before: then its claim decides, and nothing need be found out for it first."""
    if request.key is None:
        return False
    return bool((await conn.execute(_IS_CLAIMED, _scope(request))).scalar_one())


class IdempotencyStore:
    """The keys of one domain, inside one transaction."""

    def __init__(self, conn: Connection, closing: Closing, *, clock: Clock, sealer: Sealer, owner: int) -> None:
        self._conn = conn
        self._closing = closing
        self._clock = clock
        self._sealer = sealer
        self._owner = owner
        self.rehearsing = False
        """Whether this transaction must not commit."""

    async def claim(self, request: IdempotentRequest) -> Claim:
        """Win the key. Raises Replayed, IdempotencyInProgress, IdempotencyKeyReused or IdempotencyAnswerGone. A rehearsal has no
        key, and from here on its transaction cannot commit."""
        self.rehearsing = request.rehearsal
        if request.key is None:
            return Claim(fresh=True)
        keep = KEEP_MONEY if request.money else KEEP
        parameters = {
            **_scope(request),
            "fingerprint": request.fingerprint,
            "owner": self._owner,
            "token": request.token,
            "lease": LEASE_SECONDS,
            "expire_time": self._clock.now() + keep,
        }
        won = await self._conn.execute(_CLAIM, parameters)
        if won.rowcount:
            return Claim(fresh=True)
        row = (await self._conn.execute(_LOOK, _scope(request))).one()
        if bytes(row.fingerprint) != request.fingerprint:
            raise IdempotencyKeyReused(request.key)
        if row.answer_until is not None and row.answer_until <= self._clock.now():
            raise IdempotencyAnswerGone(request.key, row.resource_id or "")
        if row.completed:
            answer = bytes(row.answer)
            if request.secret and not row.refused:
                answer = self._sealer.open(answer, place=_place(request))
            raise Replayed(answer, refused=row.refused)
        if row.alive:
            raise IdempotencyInProgress(request.key)
        await self._conn.execute(
            _TAKE_OVER, {**_scope(request), "owner": self._owner, "token": request.token, "lease": LEASE_SECONDS}
        )
        return Claim(fresh=False, recovery_point=row.recovery_point, resource_id=row.resource_id)

    async def advance(
        self,
        request: IdempotentRequest,
        recovery_point: str,
        resource_id: str,
        *,
        shows: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Note how far the call is, so that a same-key call after a crash goes on from there. A rehearsal ends here, before
        anything outside is asked: it raises Rehearsed with the resource that `shows` reads as it was written."""
        if request.rehearsal:
            invariant(shows is not None, "a rehearsal has nothing to show", method=request.method)
            assert shows is not None
            raise Rehearsed(request.render(await shows()))
        if request.key is not None:
            await self._conn.execute(
                _ADVANCE,
                {
                    **_scope(request),
                    "token": request.token,
                    "recovery_point": recovery_point,
                    "resource_id": resource_id,
                    "lease": LEASE_SECONDS,
                },
            )

    def complete(self, request: IdempotentRequest, value: object) -> None:
        """Store the answer to `request`, with the COMMIT. Raises Rehearsed for a rehearsal."""
        answer = request.render(value)
        if request.rehearsal:
            raise Rehearsed(answer)
        if request.secret:
            answer = self._sealer.seal(answer, place=_place(request))
        self._store(request, answer, refused=False)

    def refuse(self, request: IdempotentRequest, refusal: Refusal) -> None:
        """Store a refusal as the answer to `request`, with the COMMIT."""
        self._store(request, status_bytes(refusal), refused=True)

    def _store(self, request: IdempotentRequest, answer: bytes, *, refused: bool) -> None:
        if request.key is not None:
            sealed = request.secret and not refused
            until = self._clock.now() + KEEP_SECRET if sealed else None
            parameters = {**_scope(request), "answer": answer, "refused": refused, "until": until}
            self._closing.append((_COMPLETE, parameters))

    def release(self, request: IdempotentRequest) -> None:
        """End the lease at once: the call failed in a way that trying again may cure."""
        if request.key is not None:
            self._conn.write(_RELEASE, {**_scope(request), "token": request.token})

    async def expire(self) -> int:
        """Forget keys past their time and answers with secrets past theirs, at most so many of each. Returns how many."""
        parameters = {"now": self._clock.now(), "limit": EXPIRED_AT_ONCE_MAX}
        gone = await self._conn.execute(
            text(
                """
                DELETE FROM idempotency_keys WHERE ctid IN (
                    SELECT ctid FROM idempotency_keys WHERE expire_time < :now AND lease_until < clock_timestamp()
                    LIMIT :limit)
                """
            ),
            parameters,
        )
        erased = await self._conn.execute(
            text(
                """
                UPDATE idempotency_keys SET answer = '' WHERE ctid IN (
                    SELECT ctid FROM idempotency_keys WHERE answer_until <= :now AND answer <> '' LIMIT :limit)
                """
            ),
            parameters,
        )
        return gone.rowcount + erased.rowcount


def _scope(request: IdempotentRequest) -> dict[str, str | None]:
    return {"tenant": request.tenant, "method": request.method, "key": request.key}


def _place(request: IdempotentRequest) -> str:
    return f"idempotency_keys.answer|{request.tenant}|{request.method}|{request.key}"
