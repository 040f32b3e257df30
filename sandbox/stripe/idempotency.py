"""Idempotency keys as Stripe keeps them (https://docs.stripe.com/api/idempotent_requests): the first answer of a request that
began its work, a 500 included, is given again for 24 hours; what failed before the work is not kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sandbox.stripe.clock import Clock
from sandbox.stripe.store import Store
from sandbox.stripe.wire import Answer, Call, StripeError, invalid

KEEP_SECONDS = 24 * 3600
LENGTH_MAX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A stored answer, and the request that made it."""

    answer: Answer
    request_id: str


class Keys:
    """The stored answers, and the keys whose request is at work now."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._running: set[str] = set()

    def begin(self, call: Call) -> None:
        """Claim a request's key. Raises Stripe's 409 while another request is at work under it, 400 for one that is too long."""
        if len(call.idempotency_key) > LENGTH_MAX:
            raise invalid(f"Idempotency keys have at most {LENGTH_MAX} characters.")
        if call.stored_key in self._running:
            raise StripeError(
                409,
                "idempotency_error",
                f"There is currently another in-progress request using this Idempotent Key: {call.idempotency_key}.",
                code="idempotency_key_in_use",
            )
        if call.stored_key:
            self._running.add(call.stored_key)

    def end(self, call: Call) -> None:
        """Give a request's key free."""
        self._running.discard(call.stored_key)

    def replay(self, call: Call) -> Replay | None:
        """Return what was answered under the key. Raises Stripe's 400 where the key belongs to another request."""
        row = self._store.db.execute(
            "SELECT fingerprint, status, body, path, request_id FROM idempotency LEFT JOIN idempotency_origin USING (key) "
            "WHERE key = ? AND created > ?",
            (call.stored_key, self._clock.now() - KEEP_SECONDS),
        ).fetchone()
        if row is None:
            return None
        fingerprint, status, body, path, request_id = row
        if path is not None and path != call.path:
            raise _reused(call, f"for the same endpoint they were first used for ('{call.path}' vs '{path}')")
        if fingerprint != _fingerprint(call):
            raise _reused(call, "with the same parameters they were first used with")
        return Replay(answer=Answer(status=status, body=json.loads(body)), request_id=request_id or "")

    def keep(self, call: Call, answer: Answer) -> None:
        """Store an answer, in the transaction of the work."""
        self._store.db.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)",
            (call.stored_key, _fingerprint(call), answer.status, json.dumps(answer.body), self._clock.now()),
        )
        self._store.db.execute(
            "INSERT OR REPLACE INTO idempotency_origin VALUES (?, ?, ?)",
            (call.stored_key, call.path, call.request_id),
        )


def _fingerprint(call: Call) -> str:
    # The parsed parameters, not the text: a client may write the same form in another order.
    canonical = json.dumps([call.method, call.path, call.params], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _reused(call: Call, rule: str) -> StripeError:
    return StripeError(
        400,
        "idempotency_error",
        f"Keys for idempotent requests can only be used {rule}. Try using a key other than '{call.idempotency_key}' "
        "if you meant to execute a different request.",
    )
