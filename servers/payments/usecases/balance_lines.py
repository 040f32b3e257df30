"""A copy of Stripe's balance transactions, and whether its balance is their sum."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from prometheus_client import Gauge

from servers.payments import store
from servers.payments.usecases.deps import Deps
from servers.runtime.alerts import alert
from servers.runtime.crashpoints import crash_point, declare
from servers.runtime.outbound import Answered

PAGES_PER_WINDOW: Final = 10_000
"""A bound for one pull: a million lines within one window."""
WINDOW: Final = timedelta(days=1)
NEAR: Final = timedelta(minutes=1)
"""How far a pull and a look at our records reach back behind the one before: clocks differ, and transactions commit late."""
LOOK_BACK: Final = timedelta(days=30)
"""How far the first pull reaches back."""
declare("payments.reconcile.after_pull")
_difference = Gauge("paymesh_reconciliation_balance_difference_minor", "Stripe's balance less its lines", ["currency"])


async def pull_lines(deps: Deps, *, back: timedelta) -> int:
    """Copy Stripe's balance transactions up to now, window by window, and compare its balance with their sum where it rested
    meanwhile: it read the same before and after, and no line came that one which took it back could hide. Returns how many are
    new."""
    pulled = 0
    now = deps.clock.now()
    async with deps.db.uow() as uow:
        start = (await store.reconciliation_progress(uow.conn, start=now - LOOK_BACK)).pulled_until - back
    before = await deps.balance_outbound.execute("stripe.balance", deps.gateway.balance)
    while start + WINDOW < now:
        new = await _pull_window(deps, start, start + WINDOW)
        if new is None:
            return pulled
        pulled, start = pulled + new, start + WINDOW
        async with deps.db.uow() as uow:
            store.advance_reconciliation(uow.conn, pulled_until=start)
    # The last one has no end: the balance may have moved since `now`, and Stripe's clock is not ours.
    new = await _pull_window(deps, start, None)
    if new is None:
        return pulled
    async with deps.db.uow() as uow:
        store.advance_reconciliation(uow.conn, pulled_until=now)
    after = await deps.balance_outbound.execute("stripe.balance", deps.gateway.balance)
    since = await _pull_window(deps, now - NEAR, None)
    pulled += new + (since or 0)
    if isinstance(before, Answered) and isinstance(after, Answered) and before.value == after.value and since == 0:
        async with deps.db.uow() as uow:
            differences = await store.save_balance(uow.conn, after.value, now)
        for currency, difference in differences.items():
            _difference.labels(currency).set(difference)
            if difference:
                alert("reconciliation.balance_differs", currency=currency, difference_minor=difference)
    return pulled


async def _pull_window(deps: Deps, start: datetime, end: datetime | None) -> int | None:
    """Copy the lines of one window, page by page. Returns how many are new, or None where Stripe could not be read."""
    new, last = 0, ""
    for _ in range(PAGES_PER_WINDOW):
        page = await deps.balance_outbound.execute(
            "stripe.balance_transactions",
            partial(deps.gateway.balance_transactions, start, end, after=last),
        )
        if not isinstance(page, Answered):
            return None
        async with deps.db.uow() as uow:
            new += await store.save_balance_transactions(uow.conn, page.value.lines, deps.clock.now())
        crash_point("payments.reconcile.after_pull")
        if not page.value.more:
            return new
        last = page.value.lines[-1].id
    alert("reconciliation.window_too_full", start=str(start), end=str(end))
    return None
