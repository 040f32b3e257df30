"""Balance transactions: net = amount - fee, and the balance is their sum at all times."""

from __future__ import annotations

from collections import defaultdict

from sandbox.stripe.clock import Clock
from sandbox.stripe.store import Store, new_id
from sandbox.stripe.wire import Json

FEE_BPS = 290
FEE_FIXED = 30
AVAILABLE_AFTER_SECONDS = 2 * 24 * 3600


class Ledger:
    """Writes balance transactions and adds them up."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def charge_fee(self, amount: int) -> int:
        """Return Stripe's fee for a charge: 2.9 % + 30, half up, never more than the charge."""
        return min(amount, (amount * FEE_BPS + 5_000) // 10_000 + FEE_FIXED)

    def write(
        self, *, kind: str, amount: int, fee: int, currency: str, source: str, available_on: int | None = None
    ) -> Json:
        """Write one balance transaction, available now or later."""
        now = self._clock.now()
        available_on = max(now, available_on or 0)
        details = [
            {
                "amount": fee,
                "application": None,
                "currency": currency,
                "description": "Stripe processing fees",
                "type": "stripe_fee",
            }
        ]
        return self._store.put(
            {
                "id": new_id("txn"),
                "object": "balance_transaction",
                "amount": amount,
                "available_on": available_on,
                "balance_type": "payments",
                "created": now,
                "currency": currency,
                "description": None,
                "exchange_rate": None,
                "fee": fee,
                "fee_details": details if fee else [],
                "net": amount - fee,
                "reporting_category": kind,
                "source": source,
                "status": "pending" if available_on > now else "available",
                "type": kind,
            },
            parent=source,
        )

    def current(self, transaction: Json) -> Json:
        """Return a transaction with the status that its `available_on` gives it now."""
        transaction["status"] = "available" if transaction["available_on"] <= self._clock.now() else "pending"
        return transaction

    def balance(self) -> Json:
        """Return the balance object."""
        sums: dict[str, dict[str, int]] = {"available": defaultdict(int), "pending": defaultdict(int)}
        for currency, available, net in self._store.balance(self._clock.now()):
            sums["available" if available else "pending"][currency] += net
        currencies = sorted({*sums["available"], *sums["pending"]}) or ["usd"]
        sides = {
            side: [
                {"amount": sums[side][c], "currency": c, "source_types": {"card": sums[side][c]}} for c in currencies
            ]
            for side in sums
        }
        return {"object": "balance", "livemode": False, **sides}
