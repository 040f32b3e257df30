"""Facts that move a customer's money: holds, what is captured from them, voids, top-ups.

An outside fact has happened and cannot be refused. These may be: they ask for money that the wallet must have. A refusal is the
verdict, and nothing is written then but the burnt id of a hold that the wallet could not cover.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from servers.kernel.money import CURRENCIES, Money
from servers.wallets.domain import (
    PLATFORM,
    AccountKind,
    Sheet,
    Transfer,
    TransferKind,
    Verdict,
    account_id,
    wallet_id,
)
from servers.wallets.lines import line, line_id, post_lines

HOLD = "wallet.hold"
VOID = "wallet.void"
CAPTURE = "capture.gross"
FEE = "capture.fee"
REFUND = "refund.wallet"
TOP_UP = "top_up"
EXPIRED = "hold.expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletHoldFact:
    """Money of a wallet that is held for a payment."""

    attempt_id: str
    payment_id: str
    merchant_id: str
    customer_id: str
    wallet_id: str
    amount: Money
    create_time: datetime
    expire_time: datetime

    @property
    def id(self) -> str:
        """The pending transfer."""
        return hold_id(self.attempt_id, self.merchant_id)

    @property
    def account_id(self) -> str:
        """The account of the wallet that is named, or "" where the customer can have no such wallet.

        Wallet ids are derived, so that a wallet in another currency than the amount's is found by trying: only then does the
        ledger's own check tell CURRENCY_MISMATCH from ACCOUNT_NOT_FOUND.
        """
        others = (currency for currency in CURRENCIES if wallet_id(self.customer_id, currency) == self.wallet_id)
        own = wallet_id(self.customer_id, self.amount.currency) == self.wallet_id
        currency = self.amount.currency if own else next(others, "")
        return account_id(self.customer_id, AccountKind.CUSTOMER_WALLET, currency) if currency else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletVoidFact:
    """What is left of a hold goes back."""

    attempt_id: str
    merchant_id: str
    void_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUpFact:
    """Money taken from a card for a wallet: the capture of a payment that is a top-up."""

    capture_id: str
    top_up_id: str
    customer_id: str
    amount: Money
    capture_time: datetime


def hold_id(attempt_id: str, merchant_id: str) -> str:
    """Return the id of an attempt's hold."""
    return line_id(attempt_id, HOLD, merchant_id)


def post_hold(sheet: Sheet, fact: WalletHoldFact) -> tuple[Verdict, list[Transfer]]:
    """Hold the money, unless the hold was written before: then it is not looked at again."""
    if fact.id in sheet.known:
        return Verdict.EXISTS, []
    if late := _too_late(sheet, fact):
        return late, []
    return post_lines(sheet, [_hold(fact)])


def post_void(sheet: Sheet, fact: WalletVoidFact) -> tuple[Verdict, list[Transfer]]:
    """Give back what is left of a hold. One that never was is burnt, so that a late one cannot come after the void."""
    hold = hold_id(fact.attempt_id, fact.merchant_id)
    if hold not in sheet.known:
        if hold in sheet.burnt:
            return Verdict.EXISTS, []
        sheet.burn(hold)
        return Verdict.CREATED, []
    if sheet.pendings[hold].closed:
        return Verdict.EXISTS, []
    key = f"{fact.attempt_id}:void"
    return post_lines(sheet, [_ending(key, VOID, hold, TransferKind.VOID_PENDING, fact.merchant_id, fact.void_time)])


def expiry_of(hold: Transfer, now: datetime) -> Transfer:
    """Return the end of a hold whose time is over: the same for every sweep."""
    return Transfer(
        id=line_id(hold.id, EXPIRED, hold.id),
        debit_account_id="",
        credit_account_id="",
        amount_minor=0,
        currency=hold.currency,
        code=EXPIRED,
        kind=TransferKind.VOID_PENDING,
        fact_id=hold.fact_id,
        effective_time=hold.expire_time or now,
        pending_id=hold.id,
    )


def post_wallet_capture(
    sheet: Sheet, hold: WalletHoldFact, *, capture_id: str, amount: Money, fee: Money, time: datetime
) -> tuple[Verdict, list[Transfer]]:
    """Take a capture from its hold, and the hold with it where it is not there yet; the fee in the same chain."""
    merchant = hold.merchant_id
    lines = []
    if hold.id not in sheet.known:
        if late := _too_late(sheet, hold):
            return late, []
        lines.append(_hold(hold))
    elif sheet.known[hold.id].currency != amount.currency:
        return Verdict.CURRENCY_MISMATCH, []
    lines += [
        _ending(capture_id, CAPTURE, hold.id, TransferKind.POST_PENDING, merchant, time, amount),
        line(capture_id, FEE, (merchant, AccountKind.MERCHANT_PENDING), (PLATFORM, AccountKind.PLATFORM_FEES),
             fee, owner_id=merchant, time=time),
    ]  # fmt: skip
    verdict, written = post_lines(sheet, lines)
    if verdict is Verdict.PENDING_CLOSED and _was_swept(sheet, hold.id):
        return Verdict.PENDING_EXPIRED, []
    return verdict, written


def post_top_up(sheet: Sheet, fact: TopUpFact) -> tuple[Verdict, list[Transfer]]:
    """Put a charged card's money into the wallet. The id follows from the capture; the code names the top-up."""
    clearing, wallet = (PLATFORM, AccountKind.PROCESSOR_CLEARING), (fact.customer_id, AccountKind.CUSTOMER_WALLET)
    credit = line(fact.capture_id, TOP_UP, clearing, wallet, fact.amount,
                  owner_id=fact.customer_id, time=fact.capture_time)  # fmt: skip
    return post_lines(sheet, [replace(credit, code=f"{TOP_UP}.{fact.top_up_id}")])


def _hold(fact: WalletHoldFact) -> Transfer:
    return Transfer(
        id=fact.id,
        debit_account_id=fact.account_id,
        credit_account_id=account_id(fact.merchant_id, AccountKind.MERCHANT_PENDING, fact.amount.currency),
        amount_minor=fact.amount.amount_minor,
        currency=fact.amount.currency,
        code=HOLD,
        kind=TransferKind.PENDING,
        fact_id=fact.attempt_id,
        effective_time=fact.create_time,
        expire_time=fact.expire_time,
    )


def _ending(
    fact_id: str, code: str, hold: str, kind: TransferKind, merchant_id: str, time: datetime, amount: Money | None = None
) -> Transfer:  # fmt: skip
    return Transfer(
        id=line_id(fact_id, code, merchant_id),
        debit_account_id="",
        credit_account_id="",
        amount_minor=amount.amount_minor if amount is not None else 0,
        currency=amount.currency if amount is not None else "",
        code=code,
        kind=kind,
        fact_id=fact_id,
        effective_time=time,
        pending_id=hold,
    )


def _too_late(sheet: Sheet, fact: WalletHoldFact) -> Verdict | None:
    """A hold that arrives after its own end is as if it had expired."""
    return Verdict.PENDING_EXPIRED if fact.expire_time <= sheet.now else None


def _was_swept(sheet: Sheet, hold: str) -> bool:
    """Tell whether what ended a hold was its time."""
    return any(one.pending_id == hold and one.code == EXPIRED for one in sheet.known.values())
