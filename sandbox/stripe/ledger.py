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
        self,
        *,
        kind: str,
        amount: int,
        fee: int,
        currency: str,
        source: str | None,
        available_on: int | None = None,
        category: str = "",
        description: str | None = None,
        fee_name: str = "Stripe processing fees",
    ) -> Json:
        """Write one balance transaction, available now or later. A negative fee is one that comes back. `category`: the
        `reporting_category`, where it is not the type's own name (https://docs.stripe.com/reports/reporting-categories)."""
        now = self._clock.now()
        available_on = max(now, available_on or 0)
        details = [
            {
                "amount": fee,
                "application": None,
                "currency": currency,
                "description": fee_name,
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
                "description": description,
                "exchange_rate": None,
                "fee": fee,
                "fee_details": details if fee else [],
                "net": amount - fee,
                "reporting_category": category or kind,
                "source": source,
                "status": "pending" if available_on > now else "available",
                "type": kind,
            },
            parent=source or "",
        )

    def current(self, transaction: Json) -> Json:
        """Return a transaction with the status that its `available_on` gives it now."""
        transaction["status"] = "available" if transaction["available_on"] <= self._clock.now() else "pending"
        return transaction

    def charge_fees(self, amount: int, currency: str, description: str) -> Json:
        """Stripe takes a fee of its own, as for Radar or Billing: a transaction of no source."""
        return self.write(
            kind="stripe_fee",
            category="fee",
            amount=-amount,
            fee=0,
            currency=currency,
            source=None,
            description=description,
        )

    def available(self, currency: str) -> int:
        """Return what may be paid out."""
        sums = self._store.balance(self._clock.now())
        return sum(net for code, is_available, net in sums if is_available and code == currency)

    def not_paid_out(self, currency: str) -> list[str]:
        """Return the transactions that the next automatic payout settles."""
        return self._store.not_paid_out(currency, self._clock.now())

    def pay_out(self, transactions: list[str], payout: str) -> None:
        """Say with which automatic payout transactions went."""
        self._store.db.executemany("INSERT INTO paid_out VALUES (?, ?)", [(one, payout) for one in transactions])

    def export(self) -> Json:
        """Return the whole ledger for reconciliation: each transaction with the balance after it, and the sums of each currency
        by type and by status."""
        transactions: list[Json] = []
        balances: dict[str, int] = defaultdict(int)
        sums: dict[str, Json] = {}
        for one, payout in self._store.transactions():
            row, currency = self.current(one), one["currency"]
            balances[currency] += row["net"]
            kept = ("id", "type", "reporting_category", "source", "currency", "amount", "fee", "net", "created",
                    "available_on", "status")  # fmt: skip
            line = {name: row[name] for name in kept}
            transactions.append(line | {"payout": payout, "balance_after": balances[currency]})
            sides = sums.setdefault(currency, {"available": 0, "pending": 0, "by_type": defaultdict(int), "fees": 0})
            sides[row["status"]] += row["net"]
            sides["by_type"][row["type"]] += row["amount"]
            sides["fees"] += row["fee"]
        totals = {currency: sums[currency] | {"total": balances[currency]} for currency in sorted(sums)}
        return {"now": self._clock.now(), "currencies": totals, "transactions": transactions}

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
