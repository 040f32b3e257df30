"""Facts of the processor's own books: Stripe's balance transactions, and what people decide about money that they do not explain.

After a balance transaction is booked, `processor_clearing` has moved by exactly what Stripe's balance moved by. What the facts of
payments say of it is `matched`; the difference, if any, waits in `suspense` until somebody explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servers.kernel.ids import derive_id
from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.wallets.domain import (
    PLATFORM,
    PLATFORM_BUCKET,
    AccountKind,
    Sheet,
    Transfer,
    TransferKind,
    Verdict,
    account_id,
)
from servers.wallets.lines import post_lines

COUNTERPARTS = (
    AccountKind.REFUNDS_IN_TRANSIT,
    AccountKind.DISPUTES_WITHDRAWN,
    AccountKind.PLATFORM_BANK,
    AccountKind.PROCESSOR_FEES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceTransactionFact:
    """A balance transaction of Stripe's. All amounts are signed: positive is money that Stripe holds for the platform."""

    balance_transaction_id: str
    """Stripe's id, `txn_…`."""
    amount: Money
    """What Stripe moved, before its fee, in the currency of Stripe's balance."""
    fee: Money
    """What Stripe kept of it, in the same currency."""
    matched: Money
    """What our own records say was moved, in the currency of the payment; zero where they know of nothing."""
    counterpart: AccountKind | None
    """The account that `matched` moves against, or None where the fact of a capture moved it already."""
    effective_time: datetime
    explained: bool = False
    """Whether it was booked before without `matched`, so that its amount waits in suspense, and its fee is booked."""

    @property
    def key(self) -> str:
        """Under which its transfers are found again."""
        return f"{self.balance_transaction_id}:explained" if self.explained else self.balance_transaction_id


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOffFact:
    """A person decides that a difference in suspense is a loss of the platform's, or a gain."""

    item_id: str
    amount: Money
    """Signed: positive is money in suspense that nobody claims."""
    decide_time: datetime


ProcessorFact = BalanceTransactionFact | WriteOffFact


def processor_key(fact: ProcessorFact) -> str:
    """Return the id under which a fact's transfers are found again."""
    return fact.key if isinstance(fact, BalanceTransactionFact) else fact.item_id


def processor_accounts(fact: ProcessorFact) -> list[tuple[str, AccountKind, str]]:
    """Return owner, kind and currency of every account that a fact may touch."""
    if isinstance(fact, WriteOffFact):
        return [(PLATFORM, kind, fact.amount.currency) for kind in (AccountKind.SUSPENSE, AccountKind.LOSSES)]
    kinds = [AccountKind.PROCESSOR_CLEARING, AccountKind.SUSPENSE, AccountKind.PROCESSOR_FEES, AccountKind.FX]
    kinds += [fact.counterpart] if fact.counterpart is not None else []
    currencies = {fact.amount.currency, fact.matched.currency}
    return [(PLATFORM, kind, currency) for kind in kinds for currency in sorted(currencies)]


def post_processor(sheet: Sheet, fact: ProcessorFact) -> tuple[Verdict, list[Transfer]]:
    """Book it, once."""
    key = processor_key(fact)
    if any(t.fact_id == key for t in sheet.known.values()):
        return Verdict.EXISTS, []
    lines = _write_off(fact) if isinstance(fact, WriteOffFact) else _balance_transaction(fact)
    if not lines:
        return Verdict.EXISTS, []  # a capture's own fact said it all
    verdict, written = post_lines(sheet, lines)
    invariant(verdict is Verdict.CREATED, "an account of the platform refused", fact_id=key, verdict=verdict.value)
    return verdict, written


def _write_off(fact: WriteOffFact) -> list[Transfer]:
    return _flow(fact.item_id, "write_off", AccountKind.LOSSES, AccountKind.SUSPENSE, fact.amount, fact.decide_time)


def _balance_transaction(fact: BalanceTransactionFact) -> list[Transfer]:
    key, time, clearing = fact.key, fact.effective_time, AccountKind.PROCESSOR_CLEARING
    lines = []
    if fact.counterpart is not None:
        lines += _flow(key, "bt.matched", fact.counterpart, clearing, fact.matched, time)
    if fact.amount.currency == fact.matched.currency:
        arrived = Money.zero(fact.amount.currency) if fact.explained else fact.amount
        lines += _flow(key, "bt.difference", AccountKind.SUSPENSE, clearing, arrived - fact.matched, time)
    else:
        # Stripe holds another currency than the payment's: our claim in the one becomes its balance in the other.
        holder = AccountKind.SUSPENSE if fact.explained else clearing
        lines += _flow(key, "bt.fx_from", AccountKind.FX, clearing, -fact.matched, time)
        lines += _flow(key, "bt.fx_to", AccountKind.FX, holder, fact.amount, time)
    if not fact.explained:
        lines += _flow(key, "bt.fee", AccountKind.PROCESSOR_FEES, clearing, -fact.fee, time)
    return lines


def _flow(
    key: str, code: str, source: AccountKind, target: AccountKind, amount: Money, time: datetime
) -> list[Transfer]:
    """Return the line that adds `amount` to the debit-normal `target` out of `source`; the reverse where it is negative, none for
    zero."""
    if not amount.amount_minor:
        return []
    into = account_id(PLATFORM, target, amount.currency)
    out_of = account_id(PLATFORM, source, amount.currency)
    debit, credit = (into, out_of) if amount.amount_minor > 0 else (out_of, into)
    return [
        Transfer(
            id=derive_id("trf", key, code, bucket=PLATFORM_BUCKET),
            debit_account_id=debit,
            credit_account_id=credit,
            amount_minor=abs(amount.amount_minor),
            currency=amount.currency,
            code=code,
            kind=TransferKind.POSTED,
            fact_id=key,
            effective_time=time,
        )
    ]
