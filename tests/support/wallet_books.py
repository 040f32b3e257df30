"""Ann, who has a wallet, a shop that she pays, and the facts that move her money."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from servers.kernel.ids import derive_id
from servers.kernel.money import Money
from servers.wallets.domain import PLATFORM, Account, AccountKind, Sheet, Verdict, account_id, wallet_id
from servers.wallets.facts import CaptureFact, Fact, RefundCreatedFact, book
from servers.wallets.wallet_facts import TopUpFact, WalletHoldFact, WalletVoidFact

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN, MERCHANT = derive_id("usr", "ann", bucket=3), derive_id("mer", "shop", bucket=5)
KINDS = [
    (ANN, AccountKind.CUSTOMER_WALLET, "USD"),
    (ANN, AccountKind.CUSTOMER_WALLET, "EUR"),
    *((MERCHANT, kind, "USD") for kind in (AccountKind.MERCHANT_PENDING, AccountKind.MERCHANT_AVAILABLE)),
    (MERCHANT, AccountKind.MERCHANT_PENDING, "EUR"),
    *((PLATFORM, kind, "USD") for kind in (AccountKind.PROCESSOR_CLEARING, AccountKind.PLATFORM_FEES)),
    (PLATFORM, AccountKind.REFUNDS_IN_TRANSIT, "USD"),
]
WALLET = account_id(*KINDS[0])


def usd(amount: int) -> Money:
    """Return dollars in cents."""
    return Money(amount_minor=amount, currency="USD")


def hold_of(name: str, amount: int, **more: object) -> WalletHoldFact:
    """Return a hold of Ann's dollars for an hour."""
    fact = WalletHoldFact(
        attempt_id=derive_id("att", name, bucket=5),
        payment_id=derive_id("pay", name, bucket=5),
        merchant_id=MERCHANT,
        customer_id=ANN,
        wallet_id=wallet_id(ANN, "USD"),
        amount=usd(amount),
        create_time=NOW,
        expire_time=NOW + timedelta(hours=1),
    )
    return replace(fact, **more)  # type: ignore[arg-type]  # fields by name


def capture_of(hold: WalletHoldFact, name: str, amount: int, fee: int = 0) -> CaptureFact:
    """Return a capture from a hold."""
    return CaptureFact(
        capture_id=derive_id("cap", name, bucket=5),
        payment_id=hold.payment_id,
        merchant_id=MERCHANT,
        amount=usd(amount),
        fee=usd(fee),
        capture_time=NOW,
        hold=hold,
    )


def void_of(hold: WalletHoldFact) -> WalletVoidFact:
    """Return the end of a hold."""
    return WalletVoidFact(attempt_id=hold.attempt_id, merchant_id=MERCHANT, void_time=NOW)


def top_up(name: str, amount: int) -> TopUpFact:
    """Return money for Ann's wallet."""
    return TopUpFact(
        capture_id=derive_id("cap", name, bucket=3),
        top_up_id=derive_id("top", name, bucket=3),
        customer_id=ANN,
        amount=usd(amount),
        capture_time=NOW,
    )


def tell(sheet: Sheet, fact: Fact) -> Verdict:
    """Book a fact and return its verdict."""
    return book(sheet, fact, list(sheet.known.values()))[0]


def sums(sheet: Sheet) -> tuple[int, int, int, int]:
    """Return the wallet's balance and available money, the merchant's pending money, and the fees."""
    wallet = sheet.accounts[WALLET]
    pending = sheet.accounts[account_id(MERCHANT, AccountKind.MERCHANT_PENDING, "USD")]
    fees = sheet.accounts[account_id(PLATFORM, AccountKind.PLATFORM_FEES, "USD")]
    return wallet.balance, wallet.available, pending.balance, fees.balance


def refund_of(name: str, amount: int, *captures: CaptureFact) -> RefundCreatedFact:
    """Return a refund to Ann's wallet."""
    return RefundCreatedFact(
        refund_id=derive_id("ref", name, bucket=5),
        amount=usd(amount),
        captures=tuple(captures),
        create_time=NOW,
        wallet_customer_id=ANN,
    )


def books() -> Sheet:
    """Return the books before anything happened."""
    accounts = [Account(id=account_id(*kind), owner_id=kind[0], kind=kind[1], currency=kind[2]) for kind in KINDS]
    return Sheet(now=NOW, accounts={a.id: a for a in accounts}, known={}, burnt=set(), pendings={})
