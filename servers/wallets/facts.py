"""Facts of the payments domain and the lines that they write.

A transfer's id is the hash of the fact's own id and the line's code: the synchronous call, the event, the webhook and a
backfill all arrive at the same id, and the later ones find it there. The lines are planned after the locks, because only
the ledger knows the lots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.wallets import dispute_facts, fee_facts
from servers.wallets.dispute_facts import DisputeEndedFact, DisputeFundsFact, DisputeOpenedFact
from servers.wallets.domain import DONE, PLATFORM, AccountKind, Lot, Sheet, Transfer, Verdict, account_id
from servers.wallets.fee_facts import FEE_RETURNED
from servers.wallets.lines import line, line_id, post_lines
from servers.wallets.processor_facts import (
    BalanceTransactionFact,
    ProcessorFact,
    WriteOffFact,
    post_processor,
    processor_accounts,
    processor_key,
)
from servers.wallets.suspense_facts import (
    CLEARING,
    HELD,
    SuspenseFact,
    SuspenseRefundFact,
    post_suspense,
    post_suspense_refund,
    suspense_lines,
)
from servers.wallets.suspense_facts import REFUND as SUSPENSE_REFUND
from servers.wallets.wallet_facts import (
    FEE,
    REFUND,
    TopUpFact,
    WalletHoldFact,
    WalletVoidFact,
    hold_id,
    post_hold,
    post_top_up,
    post_void,
    post_wallet_capture,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureFact:
    """Money taken from a card, or from what a wallet holds for the payment."""

    capture_id: str
    payment_id: str
    merchant_id: str
    amount: Money
    fee: Money
    capture_time: datetime
    hold: WalletHoldFact | None = None
    settlement_delay: timedelta | None = None
    """How long the money is pending; None leaves it to the ledger's own delay."""
    fee_returnable: bool = False
    """Whether refunds return its fee."""
    suspense: SuspenseFact | None = None
    """What it was before a person accepted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundCreatedFact:
    """A refund that is about to be sent."""

    refund_id: str
    amount: Money
    captures: tuple[CaptureFact, ...]
    create_time: datetime
    wallet_customer_id: str = ""
    """Whose wallet paid and gets the money back at once; "" for a card."""
    fee_returned_minor: int = 0
    """What the platform returns of its fee, in the refund's currency."""
    within_balance: bool = False
    """Whether to refuse what the merchant's balance does not cover, instead of taking it below zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailedFact:
    """A refund that failed or was canceled. One that was never booked is burnt, so that a late booking cannot come after it."""

    refund_id: str
    merchant_id: str
    """Or the user, of money in suspense that was taken for a top-up."""
    fail_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFact:
    """The settlement delay of a capture is over."""

    capture_id: str
    merchant_id: str
    currency: str
    settle_time: datetime


Fact = (
    CaptureFact
    | RefundCreatedFact
    | RefundFailedFact
    | SettlementFact
    | WalletHoldFact
    | WalletVoidFact
    | TopUpFact
    | DisputeOpenedFact
    | DisputeEndedFact
    | DisputeFundsFact
    | SuspenseFact
    | SuspenseRefundFact
    | ProcessorFact
)


def fact_key(fact: Fact) -> str:
    """Return the id under which a fact's transfers are found again."""
    match fact:
        case CaptureFact() | TopUpFact():
            return fact.capture_id
        case RefundCreatedFact() | SuspenseRefundFact():
            return fact.refund_id
        case SuspenseFact():
            return fact.suspense_item_id
        case RefundFailedFact():
            return f"{fact.refund_id}:failed"
        case SettlementFact():
            return f"{fact.capture_id}:settled"
        case WalletHoldFact():
            return fact.attempt_id
        case WalletVoidFact():
            return f"{fact.attempt_id}:void"
        case BalanceTransactionFact() | WriteOffFact():
            return processor_key(fact)
        case DisputeOpenedFact() | DisputeEndedFact() | DisputeFundsFact():
            return fact.key


def related_keys(fact: Fact) -> tuple[str, ...]:
    """Return the fact keys whose transfers must be known before a fact can be planned; its own is the first."""
    match fact:
        case CaptureFact():
            held = (fact.hold.attempt_id,) if fact.hold is not None else ()
            return (fact.capture_id, *held, *((fact.suspense.suspense_item_id,) if fact.suspense is not None else ()))
        case RefundCreatedFact():
            return (fact.refund_id, *(key for capture in fact.captures for key in related_keys(capture)))
        case RefundFailedFact():
            return (fact_key(fact), fact.refund_id)
        case SettlementFact():
            return (fact_key(fact), fact.capture_id)
        case WalletVoidFact():
            return (fact_key(fact), fact.attempt_id)
        case SuspenseRefundFact():
            return (fact.refund_id, fact.suspense.suspense_item_id)
        case DisputeEndedFact():
            return (fact.key, fact.opened.key)
        case (
            WalletHoldFact()
            | TopUpFact()
            | DisputeOpenedFact()
            | DisputeFundsFact()
            | SuspenseFact()
            | BalanceTransactionFact()
            | WriteOffFact()
        ):
            return (fact_key(fact),)


def owner_of(fact: Fact) -> str:
    """Return in whose bucket a fact's transfers stand: the merchant's, or the customer's or platform's where there is none."""
    match fact:
        case RefundCreatedFact():
            return fact.captures[0].merchant_id
        case TopUpFact():
            return fact.customer_id
        case BalanceTransactionFact() | WriteOffFact():
            return PLATFORM
        case DisputeOpenedFact() | DisputeEndedFact() | DisputeFundsFact():
            return fact.owner_id
        case SuspenseFact():
            return fact.owner_id
        case SuspenseRefundFact():
            return fact.suspense.owner_id
        case _:
            return fact.merchant_id


def currency_of(fact: Fact) -> str:
    """Return a fact's currency, or "" where only its stored transfers know it."""
    match fact:
        case DisputeEndedFact():
            return fact.opened.amount.currency
        case (
            CaptureFact()
            | RefundCreatedFact()
            | WalletHoldFact()
            | TopUpFact()
            | BalanceTransactionFact()
            | WriteOffFact()
            | DisputeOpenedFact()
            | SuspenseFact()
            | DisputeFundsFact()
        ):
            return fact.amount.currency
        case SuspenseRefundFact():
            return fact.suspense.amount.currency
        case SettlementFact():
            return fact.currency
        case RefundFailedFact() | WalletVoidFact():
            return ""


def holds_of(fact: Fact) -> set[str]:
    """Return the holds that a fact may write or end."""
    match fact:
        case WalletHoldFact():
            return {fact.id}
        case WalletVoidFact():
            return {hold_id(fact.attempt_id, fact.merchant_id)}
        case CaptureFact():
            return {fact.hold.id} if fact.hold is not None else set()
        case RefundCreatedFact():
            return {hold for capture in fact.captures for hold in holds_of(capture)}
        case _:
            return set()


def tombstones_of(fact: Fact) -> set[str]:
    """Return what tells, burnt, that a fact came to its end before it was booked."""
    match fact:
        case RefundCreatedFact():
            return {_tombstone(fact.refund_id, owner_of(fact))}
        case SuspenseRefundFact():
            return {_tombstone(fact.refund_id, fact.suspense.owner_id)}
        case RefundFailedFact():
            return {_tombstone(fact.refund_id, fact.merchant_id)}
        case _:
            return set()


def _tombstone(refund_id: str, merchant_id: str) -> str:
    return line_id(refund_id, "refund.ended", merchant_id)


def opened_by(fact: Fact, currency: str) -> list[tuple[str, AccountKind, str]]:
    """Return owner, kind and currency of every account that a fact may touch and that is opened where it is missing."""
    platform = [AccountKind.PROCESSOR_CLEARING, AccountKind.PLATFORM_FEES, AccountKind.REFUNDS_IN_TRANSIT]
    if isinstance(fact, TopUpFact):
        return [(PLATFORM, AccountKind.PROCESSOR_CLEARING, currency)]
    if isinstance(fact, BalanceTransactionFact | WriteOffFact):
        return processor_accounts(fact)
    if isinstance(fact, DisputeOpenedFact | DisputeEndedFact | DisputeFundsFact):
        return [(owner, kind, currency) for owner, kind in dispute_facts.opened_by(fact)]
    suspended = (AccountKind.PROCESSOR_CLEARING, AccountKind.SUSPENSE, AccountKind.REFUNDS_IN_TRANSIT)
    # A refund of a user's, not of a merchant's, can only be one of money in suspense.
    if isinstance(fact, SuspenseFact | SuspenseRefundFact) or not owner_of(fact).startswith("mer_"):
        return [(PLATFORM, kind, currency) for kind in suspended]
    parts = fact.captures if isinstance(fact, RefundCreatedFact) else (fact,)
    if any(isinstance(one, RefundFailedFact) or (isinstance(one, CaptureFact) and one.suspense) for one in parts):
        platform.append(AccountKind.SUSPENSE)
    merchant = (AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE)
    return [(owner_of(fact), kind, currency) for kind in merchant] + [(PLATFORM, kind, currency) for kind in platform]


def wallet_accounts_of(fact: Fact) -> set[str]:
    """Return the accounts of the wallets that a fact takes from or gives to: locked with the others, and never opened for it."""
    match fact:
        case WalletHoldFact():
            return {fact.account_id}
        case CaptureFact():
            return wallet_accounts_of(fact.hold) if fact.hold is not None else set()
        case RefundCreatedFact():
            taken = {account for capture in fact.captures for account in wallet_accounts_of(capture)}
            return taken | ({_refunded_account(fact)} if fact.wallet_customer_id else set())
        case TopUpFact():
            return {account_id(fact.customer_id, AccountKind.CUSTOMER_WALLET, fact.amount.currency)}
        case DisputeEndedFact():
            return wallet_accounts_of(fact.opened)
        case DisputeOpenedFact():
            return {account_id(*fact.held_from, fact.amount.currency)} if fact.of_top_up else set()
        case _:
            return set()


def book(sheet: Sheet, fact: Fact, stored: Iterable[Transfer]) -> tuple[Verdict, list[Transfer]]:
    """Plan and post a fact's lines. `stored` are the transfers of `related_keys`. Returns CREATED and what it wrote, EXISTS where
    it was there before, or why what moves a wallet's money was refused."""
    match fact:
        case CaptureFact():
            return _capture(sheet, fact)
        case RefundCreatedFact():
            return _refund(sheet, fact)
        case RefundFailedFact():
            written = _refund_failed(sheet, fact, [t for t in stored if t.fact_id == fact.refund_id])
        case SettlementFact():
            written = _settle(sheet, fact)
        case WalletHoldFact():
            return post_hold(sheet, fact)
        case WalletVoidFact():
            return post_void(sheet, fact)
        case TopUpFact():
            return post_top_up(sheet, fact)
        case BalanceTransactionFact() | WriteOffFact():
            return post_processor(sheet, fact)
        case DisputeOpenedFact():
            written = _post(sheet, dispute_facts.opening(sheet, fact))
        case DisputeEndedFact():
            written = _post(sheet, dispute_facts.opening(sheet, fact.opened))
            written = [*written, *_post(sheet, dispute_facts.ending(sheet, fact))]
        case DisputeFundsFact():
            written = _post(sheet, dispute_facts.funds(sheet, fact))
        case SuspenseFact():
            return post_suspense(sheet, fact)
        case SuspenseRefundFact():
            if tombstones_of(fact) & sheet.burnt:
                return Verdict.BURNT, []
            return post_suspense_refund(sheet, fact)
    return (Verdict.CREATED if written else Verdict.EXISTS), written


def _post(sheet: Sheet, lines: list[Transfer]) -> list[Transfer]:
    """Post the lines of a fact that has happened: what the ledger says cannot undo it. None for one that is booked already."""
    if not lines:
        return []
    verdict, written = post_lines(sheet, lines)
    invariant(verdict in DONE, "a fact was refused", verdict=verdict.value, fact_id=lines[0].fact_id)
    return written


def _capture(sheet: Sheet, fact: CaptureFact) -> tuple[Verdict, list[Transfer]]:
    if fact.capture_id in sheet.lots:
        return Verdict.EXISTS, []
    net = fact.amount - fact.fee
    invariant(net.amount_minor >= 0, "a fee above its capture", capture_id=fact.capture_id)
    if fact.hold is not None:
        verdict, written = post_wallet_capture(
            sheet, fact.hold, capture_id=fact.capture_id, amount=fact.amount, fee=fact.fee, time=fact.capture_time
        )
        if verdict not in DONE:
            return verdict, []
    else:
        written = _card_capture(sheet, fact, net)
    sheet.lots[fact.capture_id] = Lot(
        capture_id=fact.capture_id,
        payment_id=fact.payment_id,
        merchant_id=fact.merchant_id,
        currency=net.currency,
        net_minor=net.amount_minor,
        returned_minor=0,
        taken_minor=0,
        capture_time=fact.capture_time,
        due_time=fact.capture_time
        + (fact.settlement_delay if fact.settlement_delay is not None else sheet.settlement_delay),
    )
    sheet.touched_lots.add(fact.capture_id)
    return Verdict.CREATED, written


def _card_capture(sheet: Sheet, fact: CaptureFact, net: Money) -> list[Transfer]:
    merchant, source = fact.merchant_id, CLEARING if fact.suspense is None else HELD
    first = suspense_lines(sheet, fact.suspense) if fact.suspense is not None else []
    return _post(
        sheet,
        [
            *first,
            line(fact.capture_id, "capture.net", source, (merchant, AccountKind.MERCHANT_PENDING), net,
                 owner_id=merchant, time=fact.capture_time),
            line(fact.capture_id, FEE, source, (PLATFORM, AccountKind.PLATFORM_FEES), fact.fee,
                 owner_id=merchant, time=fact.capture_time),
        ],
    )  # fmt: skip


def _refund(sheet: Sheet, fact: RefundCreatedFact) -> tuple[Verdict, list[Transfer]]:
    """From the payment's pending money first, the rest from available, forced: a refund is never refused for want of money. What a
    wallet paid goes on to the wallet in the same chain."""
    if fact.wallet_customer_id and _refunded_account(fact) not in sheet.accounts:
        return Verdict.ACCOUNT_NOT_FOUND, []
    for capture in fact.captures:
        from_card = capture.hold is None and capture.capture_id not in sheet.lots
        invariant(
            not (fact.wallet_customer_id and from_card), "a wallet's capture without its hold", refund_id=fact.refund_id
        )
        verdict, _ = _capture(sheet, capture)
        if verdict not in DONE:
            return verdict, []
    if any(t.fact_id == fact.refund_id for t in sheet.known.values()):
        return Verdict.EXISTS, []
    if tombstones_of(fact) & sheet.burnt:
        return Verdict.BURNT, []
    shares = fee_facts.shares_of(sheet, fact)
    if fact.within_balance and not fee_facts.covered(sheet, fact, shares):
        return Verdict.INSUFFICIENT_FUNDS, []
    merchant, transit = owner_of(fact), (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    lines = fee_facts.returned(sheet, fact, shares)
    left = fact.amount.amount_minor
    for capture in sorted(fact.captures, key=lambda c: c.capture_id):
        lot = sheet.lots[capture.capture_id]
        take = min(left, lot.left_minor)
        if take > 0:
            lines.append(
                line(fact.refund_id, f"refund.pending.{lot.capture_id}", (merchant, AccountKind.MERCHANT_PENDING), transit,
                     Money(amount_minor=take, currency=fact.amount.currency), owner_id=merchant, time=fact.create_time)
            )  # fmt: skip
            sheet.lots[lot.capture_id] = replace(lot, taken_minor=lot.taken_minor + take)
            sheet.touched_lots.add(lot.capture_id)
            left -= take
    rest = Money(amount_minor=left, currency=fact.amount.currency)
    lines.append(
        line(fact.refund_id, "refund.available", (merchant, AccountKind.MERCHANT_AVAILABLE), transit, rest,
             owner_id=merchant, time=fact.create_time, forced=True)
    )  # fmt: skip
    if fact.wallet_customer_id:
        wallet = (fact.wallet_customer_id, AccountKind.CUSTOMER_WALLET)
        lines.append(
            line(fact.refund_id, REFUND, transit, wallet, fact.amount, owner_id=merchant, time=fact.create_time)
        )
    return Verdict.CREATED, _post(sheet, lines)


def _refunded_account(fact: RefundCreatedFact) -> str:
    return account_id(fact.wallet_customer_id, AccountKind.CUSTOMER_WALLET, fact.amount.currency)


def _refund_failed(sheet: Sheet, fact: RefundFailedFact, taken: list[Transfer]) -> list[Transfer]:
    """Give back what the refund took, each part to where it came from."""
    if not taken:
        for tombstone in tombstones_of(fact):
            sheet.burn(tombstone)
        return []
    invariant(all(t.code != REFUND for t in taken), "a refund to a wallet failed", refund_id=fact.refund_id)
    transit = (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT)
    key = fact_key(fact)
    if any(t.fact_id == key for t in sheet.known.values()):
        return []
    returned = [t for t in taken if t.code.startswith(f"{FEE_RETURNED}.")]
    lines = []
    for transfer in (t for t in taken if t not in returned):
        amount = Money(amount_minor=transfer.amount_minor, currency=transfer.currency)
        capture_id = transfer.code.removeprefix("refund.pending.")
        # What came from a lot that was settled meanwhile goes to the available balance: the lot takes nothing back.
        from_pending = capture_id != transfer.code and not sheet.lots[capture_id].settled
        kind = AccountKind.MERCHANT_PENDING if from_pending else AccountKind.MERCHANT_AVAILABLE
        target = HELD if transfer.code == SUSPENSE_REFUND else (fact.merchant_id, kind)
        lines.append(
            line(key, transfer.code.replace("refund.", "refund_failed.", 1), transit, target, amount,
                 owner_id=fact.merchant_id, time=fact.fail_time)
        )  # fmt: skip
        if from_pending:
            lot = sheet.lots[capture_id]
            sheet.lots[capture_id] = replace(lot, taken_minor=lot.taken_minor - transfer.amount_minor)
            sheet.touched_lots.add(capture_id)
    if returned:
        lines += fee_facts.taken_back(sheet, key, fact, returned)
    return _post(sheet, lines)


def _settle(sheet: Sheet, fact: SettlementFact) -> list[Transfer]:
    """Move what is left of a lot from pending to available, once."""
    lot = sheet.lots.get(fact.capture_id)
    invariant(lot is not None, "a settlement without its capture", capture_id=fact.capture_id)
    assert lot is not None
    if lot.settled:
        return []
    pending, available = AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE
    left = Money(amount_minor=lot.left_minor, currency=lot.currency)
    lines = _post(
        sheet,
        [
            line(fact_key(fact), "settle", (lot.merchant_id, pending), (lot.merchant_id, available), left,
                 owner_id=lot.merchant_id, time=fact.settle_time)
        ],
    )  # fmt: skip
    sheet.lots[lot.capture_id] = replace(lot, settled=True)
    sheet.touched_lots.add(lot.capture_id)
    return lines
