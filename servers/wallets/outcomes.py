"""What is known of a top-up's payment, applied: the same whether it answered our call, came as an event, or was read later.

The money goes into the wallet before the top-up says so, and outside of the transaction that says it: the writer has its own. The
fact's id is the capture's, so whoever comes second finds it there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog

from servers.kernel.clock import Clock
from servers.kernel.invariant import invariant
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.sealed import Sealer
from servers.wallets import wallet_store
from servers.wallets.domain import DONE
from servers.wallets.events import top_up_event
from servers.wallets.resources import TOP_UP, News, TopUp, TopUpState, step_of
from servers.wallets.wallet_facts import TopUpFact
from servers.wallets.writer import Writer

_log = structlog.get_logger("top_ups")
declare("wallets.top_up.after_post")


class Outcomes:
    """Applies what payments say of top-ups."""

    def __init__(self, writer: Writer, sealer: Sealer, clock: Clock) -> None:
        self._writer = writer
        self._sealer = sealer
        self._clock = clock

    async def book(self, news: News) -> None:
        """Put a charged card's money into the wallet, once. No transaction is open. Raises LedgerOverloaded."""
        if (charged := news.charged) is None:
            return
        fact = TopUpFact(
            capture_id=charged.capture_id,
            top_up_id=news.top_up_id,
            customer_id=news.owner_id,
            amount=charged.amount,
            capture_time=charged.capture_time,
        )
        verdict = (await self._writer.post_fact(fact)).verdicts[0][0]
        invariant(
            verdict in DONE, "a top-up was refused by the ledger", top_up_id=news.top_up_id, verdict=verdict.value
        )
        crash_point("wallets.top_up.after_post")

    def apply(self, uow: UnitOfWork, top_up: TopUp, news: News, *, asked: bool) -> TopUp:
        """Apply news to a top-up whose row is locked. `asked`: it answers a question of ours, so that nothing is newer.

        Raises InvariantBroken where a top-up that failed was charged all the same: a person must look, and the money is in the
        wallet meanwhile.
        """
        charged_late = news.state is TopUpState.SUCCEEDED and top_up.state is TopUpState.FAILED
        invariant(not charged_late, "a failed top-up was charged", top_up_id=top_up.id, payment_id=news.payment_id)
        if news.charged is not None:
            same = news.charged.amount == top_up.amount
            invariant(same, "a top-up was charged with another amount", top_up_id=top_up.id, payment_id=news.payment_id)
        step = step_of(top_up, news, asked=asked)
        if step is None:
            if top_up.state not in TOP_UP.terminal:
                wallet_store.note_payment(uow.conn, top_up, news.payment_version)
            return top_up
        return self._walk(uow, top_up, step.trigger, payment_version=news.payment_version, **step.changes)

    def lost(self, uow: UnitOfWork, top_up: TopUp) -> TopUp:
        """Apply that payments' answer was lost: the card may be charged, so nothing but a look can tell."""
        if top_up.state in TOP_UP.terminal or top_up.uncertain:
            return top_up
        return self._walk(uow, top_up, "note", uncertain=True)

    def refused(self, uow: UnitOfWork, top_up: TopUp) -> TopUp:
        """Apply that payments will not charge the card, and has not."""
        if top_up.state in TOP_UP.terminal:
            return top_up
        changes = {"uncertain": False, "next_action": None, "failure_reason": "not_sent"}
        return self._walk(uow, top_up, "fail", **changes)

    def _walk(self, uow: UnitOfWork, top_up: TopUp, trigger: str, **changes: Any) -> TopUp:
        """Walk one arrow: a version and an outbox row."""
        arrow = TOP_UP.arrow(top_up.state, trigger, top_up.id)
        moved = replace(
            top_up, state=arrow.target, version=top_up.version + 1, update_time=self._clock.now(), **changes
        )
        wallet_store.save_top_up(uow.conn, self._sealer, moved, expected=top_up.version)
        uow.outbox.append(top_up_event(arrow.event, moved))
        _log.info("top_up.moved", top_up_id=moved.id, state=moved.state.value, trigger=trigger)
        return moved
