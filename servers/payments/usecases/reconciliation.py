"""Reconciliation with Stripe: pull its balance transactions, compare each with our records, book it, keep what differs in sight.

Each step is safe to repeat and to run twice at once: lines are stored by their id, judged under their own row's lock, and booked
under it as the fact's id. What a line means is written down before the ledger is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

import structlog
from prometheus_client import Counter

from servers.kernel.errors import FieldInvalid, Refusal, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.domain import (
    BREAKS,
    RECONCILIATION_ITEM,
    RECONCILIATION_OWNER,
    BalanceTransaction,
    Break,
    ItemKind,
    ItemState,
    ItemStateInvalid,
    Judgement,
    MatchMode,
    ReconciliationItem,
    judge,
)
from servers.payments.usecases.balance_lines import LOOK_BACK, NEAR, pull_lines
from servers.payments.usecases.deciding import Decider, note_decision
from servers.payments.usecases.deps import Deps
from servers.payments.usecases.disputes import learn_dispute
from servers.runtime.alerts import alert
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest

BATCH: Final = 200
FAR: Final = timedelta(hours=1)
"""How far they reach back once in as long, for what came later than anybody expects."""
_KINDS: Final = {
    **dict.fromkeys(("charge", "payment"), ItemKind.CAPTURE),
    **dict.fromkeys(("refund", "payment_refund"), ItemKind.REFUND),
    **dict.fromkeys(("refund_failure", "payment_failure_refund"), ItemKind.REFUND_FAILURE),
}
_COUNTERPARTS: Final = {
    ItemKind.CAPTURE: "",
    ItemKind.REFUND: "REFUNDS_IN_TRANSIT",
    ItemKind.REFUND_FAILURE: "REFUNDS_IN_TRANSIT",
    ItemKind.DISPUTE: "DISPUTES_WITHDRAWN",
}
_DISPUTES: Final = ("dp_", "du_")
_OWN_ACCORD: Final = {
    **dict.fromkeys(("payout", "payout_cancel", "payout_failure", "topup", "topup_reversal"), "PLATFORM_BANK"),
    **dict.fromkeys(("stripe_fee", "stripe_fx_fee", "tax_fee"), "PROCESSOR_FEES"),
}
"""What Stripe does without a record of ours: the platform's bank, and what Stripe charges for itself."""
declare("payments.reconcile.after_judgement", "payments.reconcile.after_book")
_log = structlog.get_logger("reconciliation")
_lines = Counter("paymesh_reconciliation_lines_total", "Balance transactions judged", ["kind", "outcome"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When what is done."""

    lag: timedelta
    """How long a line must have been seen before it is judged: an answer of Stripe's may still be on its way."""
    missing_after: timedelta
    """How long after a capture or refund its line counts as missing."""


def rounds(deps: Deps, timing: Timing) -> Callable[[], Awaitable[None]]:
    """Return what does a round each time: the first one, and then one each hour, looks far back."""
    far_at: datetime | None = None

    async def one_round() -> None:
        nonlocal far_at
        now = deps.clock.now()
        is_far = far_at is None or now - far_at >= FAR
        await reconcile(deps, timing, back=FAR if is_far else NEAR)
        if is_far:
            far_at = now

    return one_round


async def reconcile(deps: Deps, timing: Timing, *, back: timedelta = FAR) -> None:
    """Do one round of all steps, looking so far back behind the last one."""
    await expect_records(deps, timing, back=back)
    await pull_lines(deps, back=back)
    await judge_lines(deps, timing)
    await book_lines(deps)
    await age_items(deps)
    await book_write_offs(deps)


async def expect_records(deps: Deps, timing: Timing, *, back: timedelta) -> int:
    """Expect at Stripe what our records say was moved there. Returns how many new expectations."""
    made = 0
    now = deps.clock.now()
    async with deps.db.uow() as uow:
        since = (await store.reconciliation_progress(uow.conn, start=now - LOOK_BACK)).expected_until - back
    while True:
        async with deps.db.uow() as uow:
            new = await store.unexpected_yet(uow.conn, since=since, limit=BATCH)
            fresh = [_expected(deps, one, timing) for one in new if not await _explain(deps, uow, one)]
            if fresh:
                await store.insert_reconciliation_items(uow.conn, fresh)
                uow.outbox.append(*(deps.events.reconciliation("reconciliation_item.expected", item) for item in fresh))
            if len(new) < BATCH:
                store.advance_reconciliation(uow.conn, expected_until=now)
        made += len(new)
        if len(new) < BATCH:
            return made


async def _explain(deps: Deps, uow: UnitOfWork, expectation: store.Expectation) -> bool:
    """Match what came at Stripe before we knew of it: its money leaves suspense. Returns whether there was such."""
    for item in await store.items_of_source(uow.conn, expectation.stripe_source_id, expectation.kind):
        if item.state is not ItemState.UNEXPECTED or item.actual != expectation.amount:
            continue
        moved = _walk(
            deps,
            uow,
            item,
            "explain",
            match_mode=MatchMode.AUTO,
            break_type=Break.NONE,
            source_id=expectation.source_id,
            payment_id=expectation.payment_id,
            expected=expectation.amount,
        )
        if expectation.kind is ItemKind.DISPUTE:
            return True  # its own fact books it
        for line in await store.lines_of_item(uow.conn, moved):
            store.save_judgement(
                uow.conn,
                line.id,
                matched=expectation.amount,
                counterpart=_COUNTERPARTS[expectation.kind],
                item=moved,
                explained=True,
            )
        return True
    return False


async def judge_lines(deps: Deps, timing: Timing) -> int:
    """Say what each new line means. Returns how many were looked at."""
    count = 0
    after: tuple[datetime, str] | None = None
    while True:
        async with deps.db.read() as conn:
            waiting = await store.stored_balance_transactions(
                conn, before=deps.clock.now() - timing.lag, after=after, limit=BATCH
            )
        untold: set[str] = set()
        for _, identifier in waiting:
            async with deps.db.uow() as uow:
                line = await store.lock_stored(uow.conn, identifier)
                if line is not None and not await _judge(deps, uow, line, timing) and _is_dispute(line):
                    untold.add(line.source_id)
            crash_point("payments.reconcile.after_judgement")
        await _learn_disputes(deps, untold)
        count += len(waiting)
        if len(waiting) < BATCH:
            return count
        after = waiting[-1]


def _is_dispute(line: BalanceTransaction) -> bool:
    return line.source_id.startswith(_DISPUTES)


async def _learn_disputes(deps: Deps, stripe_dispute_ids: Iterable[str]) -> None:
    """Read disputes of which a line tells and we have not heard: their webhooks are late, or never came."""
    for identifier in sorted(stripe_dispute_ids):
        try:
            await learn_dispute(deps, identifier)
        except Refusal as refusal:
            _log.warning("dispute.not_learnt", stripe_dispute_id=identifier, reason=refusal.reason)


async def _judge(deps: Deps, uow: UnitOfWork, line: BalanceTransaction, timing: Timing) -> bool:
    """Say what a line means. False where it must wait: something of ours is not known yet that may explain it."""
    kind = ItemKind.DISPUTE if _is_dispute(line) else _KINDS.get(line.type, ItemKind.OTHER)
    if line.type in _OWN_ACCORD:
        _lines.labels(line.type, "booked").inc()
        store.save_judgement(uow.conn, line.id, matched=line.amount, counterpart=_OWN_ACCORD[line.type], item=None)
        return True
    found = judge(await _items_for(deps, uow, line, kind, timing), line)
    nothing = Money.zero(line.amount.currency)
    if found is None:
        about = await store.payment_of_line(uow.conn, line) if line.payment_intent_id else None
        uncertain = about is not None and about[2]
        assert line.pull_time is not None  # it comes from the copy
        waited = deps.clock.now() - line.pull_time
        if (uncertain or kind is ItemKind.DISPUTE) and waited < timing.missing_after:
            return False  # what became of the payment or dispute is being found out: the line waits for it
        item = await _unexpected(deps, uow, line, kind, about)
        if kind is ItemKind.DISPUTE:
            # Booked by the dispute's own fact or by nobody: until it is learnt, the audit shows that the ledger lacks it.
            matched, counterpart = line.amount, _COUNTERPARTS[kind]
            store.save_judgement(uow.conn, line.id, matched=matched, counterpart=counterpart, item=item, booked=True)
        else:
            store.save_judgement(uow.conn, line.id, matched=nothing, counterpart="", item=item)
        return True
    item = _apply(deps, uow, found, line)
    store.save_judgement(
        uow.conn,
        line.id,
        matched=found.matched,
        counterpart=_COUNTERPARTS.get(kind, ""),
        item=item,
        # The dispute's own fact has the line's id, and knows who bears the fee.
        booked=kind is ItemKind.DISPUTE,
    )
    return True


async def _items_for(
    deps: Deps, uow: UnitOfWork, line: BalanceTransaction, kind: ItemKind, timing: Timing
) -> Sequence[ReconciliationItem]:
    """Return the items of a line's charge or refund, locked; those that nobody expected yet are made now."""
    if kind is ItemKind.OTHER:
        return ()
    if kind is ItemKind.CAPTURE:
        records = await store.expectations_of_charge(uow.conn, line)
    elif kind is ItemKind.DISPUTE:
        movement = await store.expectation_of_movement(uow.conn, line.id)
        records = [movement] if movement is not None else []
    else:
        refund = await store.expectation_of_refund(uow.conn, line.source_id)
        records = [refund] if refund is not None else []
        if kind is ItemKind.REFUND_FAILURE:
            records = [replace(record, kind=kind, amount=-record.amount) for record in records]
    if not records:
        return ()
    held = await store.items_of_source(uow.conn, line.source_id, kind)
    if kind is ItemKind.DISPUTE:
        held = [item for item in held if item.source_id == line.id]
    missing = [r for r in records if r.source_id not in {item.source_id for item in held}]
    fresh = [_expected(deps, record, timing) for record in missing]
    if fresh:
        await store.insert_reconciliation_items(uow.conn, fresh)
        uow.outbox.append(*(deps.events.reconciliation("reconciliation_item.expected", item) for item in fresh))
    return [*held, *fresh]


def _apply(deps: Deps, uow: UnitOfWork, found: Judgement, line: BalanceTransaction) -> ReconciliationItem:
    item, trigger = found.item, found.trigger
    same = item.actual is not None and item.actual.currency == line.amount.currency
    actual = item.actual + line.amount if item.actual is not None and same else line.amount
    mode = MatchMode.AUTO if trigger == "match" else MatchMode.NONE
    _lines.labels(item.kind.value, trigger).inc()
    return _walk(deps, uow, item, trigger, actual=actual, break_type=found.break_type, match_mode=mode)


async def _unexpected(
    deps: Deps, uow: UnitOfWork, line: BalanceTransaction, kind: ItemKind, about: tuple[str, str, bool] | None
) -> ReconciliationItem:
    now = deps.clock.now()
    owner_id, payment_id, _ = about or (RECONCILIATION_OWNER, "", False)
    arrow = RECONCILIATION_ITEM.arrow(None, "find")
    item = ReconciliationItem(
        id=_item_id(deps, owner_id),
        owner_id=owner_id,
        kind=kind,
        state=arrow.target,
        break_type=Break.NONE,
        match_mode=MatchMode.NONE,
        payment_id=payment_id,
        source_id="",
        stripe_source_id=line.source_id,
        expected=None,
        actual=line.amount,
        due_time=now,
        reason="",
        resolved_by="",
        write_off=None,
        version=1,
        create_time=now,
        update_time=now,
    )
    await store.insert_reconciliation_items(uow.conn, [item])
    uow.outbox.append(deps.events.reconciliation(arrow.event, item))
    _lines.labels(kind.value, "unexpected").inc()
    alert("reconciliation.unexpected", item_id=item.id, line_id=line.id, type=line.type, source=line.source_id)
    return item


def _expected(deps: Deps, record: store.Expectation, timing: Timing) -> ReconciliationItem:
    now = deps.clock.now()
    return ReconciliationItem(
        id=_item_id(deps, record.owner_id),
        owner_id=record.owner_id,
        kind=record.kind,
        state=RECONCILIATION_ITEM.arrow(None, "expect").target,
        break_type=Break.NONE,
        match_mode=MatchMode.NONE,
        payment_id=record.payment_id,
        source_id=record.source_id,
        stripe_source_id=record.stripe_source_id,
        expected=record.amount,
        actual=None,
        due_time=record.time + timing.missing_after,
        reason="",
        resolved_by="",
        write_off=None,
        version=1,
        create_time=now,
        update_time=now,
    )


def _item_id(deps: Deps, owner_id: str) -> str:
    bucket = 0 if owner_id == RECONCILIATION_OWNER else bucket_of(owner_id)
    return new_id("rec", clock=deps.clock, bucket=bucket)


def _walk(deps: Deps, uow: UnitOfWork, item: ReconciliationItem, trigger: str, **changes: object) -> ReconciliationItem:
    arrow = RECONCILIATION_ITEM.arrow(item.state, trigger, item.id)
    moved = store.advance_reconciliation_item(uow.conn, item, trigger, now=deps.clock.now(), **changes)
    uow.outbox.append(deps.events.reconciliation(arrow.event, moved))
    if moved.state in BREAKS:
        alert(
            "reconciliation.break",
            item_id=moved.id,
            state=moved.state.value,
            break_type=moved.break_type.value,
            payment_id=moved.payment_id,
        )
    return moved


async def book_lines(deps: Deps) -> int:
    """Bring the ledger's clearing account to what Stripe's balance is. Returns how many lines."""
    count = 0
    while True:
        async with deps.db.read() as conn:
            waiting = await store.judged_lines(conn, limit=BATCH)
        for line in waiting:
            await deps.ledger.book_balance_transaction(
                line.transaction, matched=line.matched, counterpart=line.counterpart, explained=line.explained
            )
            crash_point("payments.reconcile.after_book")
            async with deps.db.uow() as uow:
                store.note_booked(uow.conn, line.transaction.id)
        count += len(waiting)
        if len(waiting) < BATCH:
            return count


async def age_items(deps: Deps) -> int:
    """Call missing, or short, what should have come by now. Returns how many."""
    count = 0
    while True:
        async with deps.db.uow() as uow:
            # Nothing is missing as long as Stripe's lines are not pulled up to its time.
            progress = await store.reconciliation_progress(uow.conn, start=deps.clock.now() - LOOK_BACK)
            late = await store.overdue_items(uow.conn, now=progress.pulled_until, limit=BATCH)
            for item in late:
                trigger = "differ" if item.state is ItemState.PARTIAL else "miss"
                kind = Break.AMOUNT_UNDER if item.state is ItemState.PARTIAL else Break.NONE
                _walk(deps, uow, item, trigger, break_type=kind)
        count += len(late)
        if len(late) < BATCH:
            return count


class ItemDecision(Enum):
    """How a break ends; the names are those of the contract."""

    ACCEPT = "ACCEPT"
    """The difference is explained."""
    DISMISS = "DISMISS"
    """The item means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveItem:
    """A person ends a break."""

    item_id: str
    decision: ItemDecision
    write_off: bool


async def resolve_item(
    deps: Deps, request: IdempotentRequest, command: ResolveItem, decider: Decider
) -> ReconciliationItem:
    """End a break with a reason. What it left in suspense stays there for its own posting, unless it is written off. Raises
    ResourceNotFound, ItemStateInvalid, FieldInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            item = await store.reconciliation_item(uow.conn, command.item_id, lock=True)
            if item is None:
                raise ResourceNotFound(command.item_id)
            is_accepted = command.decision is ItemDecision.ACCEPT
            trigger = "accept" if is_accepted else "void"
            if not RECONCILIATION_ITEM.allows(item.state, trigger):
                raise ItemStateInvalid(
                    f"A reconciliation item in {item.state.name} is no open break.", item.id, item.state.name
                )
            amount = await store.in_suspense(uow.conn, item) if command.write_off else None
            if command.write_off and amount is None:
                raise FieldInvalid.of("write_off", "must be false: this item left nothing in suspense")
            mode = (MatchMode.FORCED if amount is not None else MatchMode.MANUAL) if is_accepted else MatchMode.NONE
            item = _walk(
                deps,
                uow,
                item,
                trigger,
                match_mode=mode,
                reason=decider.reason,
                resolved_by=decider.actor_id,
                write_off=amount,
            )
            note_decision(
                deps,
                uow,
                item.owner_id,
                "resolve_reconciliation_item",
                item.id,
                command.decision.value,
                decider,
            )
        uow.idempotency.complete(request, item)
    await book_write_offs(deps)
    return item


async def book_write_offs(deps: Deps) -> int:
    """Book what people wrote off. Returns how many."""
    async with deps.db.read() as conn:
        waiting = await store.write_offs(conn, limit=BATCH)
    for item in waiting:
        await deps.ledger.book_write_off(item)
        async with deps.db.uow() as uow:
            store.note_write_off(uow.conn, item)
    return len(waiting)
