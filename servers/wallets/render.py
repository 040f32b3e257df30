"""Between the contract's messages and the domain's records."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from paymesh.payments.v1 import payments_pb2
from paymesh.type.v1 import money_pb2
from paymesh.wallets.v1 import ledger_pb2, wallets_pb2

from servers.kernel.money import Money
from servers.runtime.render import instant, money, parse_money, stamp
from servers.wallets.dispute_facts import DisputeEndedFact, DisputeFundsFact, DisputeOpenedFact
from servers.wallets.domain import Account, AccountKind, StatementLine, Transfer, TransferKind, Verdict
from servers.wallets.facts import CaptureFact, Fact, RefundCreatedFact, RefundFailedFact
from servers.wallets.processor_facts import BalanceTransactionFact, WriteOffFact
from servers.wallets.resources import Wallet
from servers.wallets.suspense_facts import SuspenseFact, SuspenseRefundFact
from servers.wallets.wallet_facts import WalletHoldFact, WalletVoidFact

_KINDS: Final = {ledger_pb2.Transfer.Kind.Value(kind.value): kind for kind in TransferKind}
_KIND_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
VERDICTS: Final = {verdict: ledger_pb2.Verdict.Value(verdict.value) for verdict in Verdict}
"""The contract's number of each verdict."""


def render_account(account: Account) -> ledger_pb2.Account:
    """Return an account as a message."""
    return ledger_pb2.Account(
        id=account.id,
        owner_id=account.owner_id,
        kind=ledger_pb2.Account.Kind.Value(account.kind.value),
        currency=account.currency,
        debits_posted_minor=account.debits_posted,
        credits_posted_minor=account.credits_posted,
        debits_pending_minor=account.debits_pending,
        credits_pending_minor=account.credits_pending,
        version=account.version,
    )


def render_wallet_account(wallet: Wallet, account: Account) -> ledger_pb2.WalletAccount:
    """Return a wallet with its account, for other servers."""
    return ledger_pb2.WalletAccount(wallet_id=wallet.id, customer_id=wallet.owner_id, account=render_account(account))


def render_line(line: StatementLine) -> wallets_pb2.BalanceTransaction:
    """Return a line of a balance as a message."""
    return wallets_pb2.BalanceTransaction(
        id=line.transfer_id,
        type=line.code.partition(".cap_")[0],
        source_id=line.source_id.partition(":")[0],
        amount=money(Money(amount_minor=line.amount_minor, currency=line.currency)),
        balance_after=money(Money(amount_minor=line.balance_after_minor, currency=line.currency)),
        effective_time=stamp(line.effective_time),
        record_time=stamp(line.record_time),
    )


def render_transfer(transfer: Transfer, *, record_time: datetime | None = None) -> ledger_pb2.Transfer:
    """Return a transfer as a message."""
    message = ledger_pb2.Transfer(
        id=transfer.id,
        debit_account_id=transfer.debit_account_id,
        credit_account_id=transfer.credit_account_id,
        amount=money_pb2.Money(amount_minor=transfer.amount_minor, currency=transfer.currency),
        code=transfer.code,
        kind=_KIND_NUMBERS[transfer.kind],
        pending_id=transfer.pending_id,
        linked=transfer.linked,
        forced=transfer.forced,
        fact_id=transfer.fact_id,
        effective_time=stamp(transfer.effective_time),
    )
    if transfer.expire_time is not None:
        message.expire_time.CopyFrom(stamp(transfer.expire_time))
    if record_time is not None:
        message.record_time.CopyFrom(stamp(record_time))
    return message


def parse_transfer(message: ledger_pb2.Transfer) -> Transfer:
    """Return the transfer that a message asks for."""
    return Transfer(
        id=message.id,
        debit_account_id=message.debit_account_id,
        credit_account_id=message.credit_account_id,
        amount_minor=message.amount.amount_minor,
        currency=message.amount.currency,
        code=message.code,
        kind=_KINDS[message.kind],
        fact_id=message.fact_id,
        effective_time=instant(message.effective_time),
        pending_id=message.pending_id,
        linked=message.linked,
        forced=message.forced,
        expire_time=instant(message.expire_time) if message.HasField("expire_time") else None,
    )


def parse_capture(message: ledger_pb2.CaptureFact) -> CaptureFact:
    """Return the capture that a message tells of."""
    return CaptureFact(
        capture_id=message.capture_id,
        payment_id=message.payment_id,
        merchant_id=message.merchant_id,
        amount=parse_money(message.amount),
        fee=parse_money(message.fee),
        capture_time=instant(message.capture_time),
        hold=parse_hold(message.hold) if message.HasField("hold") else None,
        settlement_delay=delay_of(message),
        fee_returnable=message.fee_returnable,
        suspense=parse_suspense(message.suspense) if message.HasField("suspense") else None,
    )


def parse_suspense(message: ledger_pb2.SuspenseFact) -> SuspenseFact:
    """Return the suspense item that a message tells of."""
    return SuspenseFact(
        suspense_item_id=message.suspense_item_id,
        owner_id=message.owner_id,
        amount=parse_money(message.amount),
        find_time=instant(message.find_time),
    )


def delay_of(message: ledger_pb2.CaptureFact | payments_pb2.Capture) -> timedelta | None:
    """Return how long a capture's money is pending; None leaves it to the ledger's own delay."""
    given = message.HasField("settlement_delay_seconds")
    return timedelta(seconds=message.settlement_delay_seconds) if given else None


def parse_hold(message: ledger_pb2.WalletHoldFact) -> WalletHoldFact:
    """Return the hold that a message asks for."""
    return WalletHoldFact(
        attempt_id=message.attempt_id,
        payment_id=message.payment_id,
        merchant_id=message.merchant_id,
        customer_id=message.customer_id,
        wallet_id=message.wallet_id,
        amount=parse_money(message.amount),
        create_time=instant(message.create_time),
        expire_time=instant(message.expire_time),
    )


def parse_balance_transaction(message: ledger_pb2.BalanceTransactionFact) -> BalanceTransactionFact:
    """Return the balance transaction that a message tells of."""
    against = ledger_pb2.Account.Kind.Name(message.counterpart)
    return BalanceTransactionFact(
        balance_transaction_id=message.balance_transaction_id,
        amount=parse_money(message.amount),
        fee=parse_money(message.fee),
        matched=parse_money(message.matched),
        counterpart=AccountKind(against) if message.counterpart else None,
        effective_time=instant(message.effective_time),
        explained=message.explained,
    )


def parse_fact(message: ledger_pb2.PostFactRequest) -> Fact:
    """Return the fact that a request books."""
    match message.WhichOneof("fact"):
        case "capture":
            return parse_capture(message.capture)
        case "refund_created":
            refund = message.refund_created
            return RefundCreatedFact(
                refund_id=refund.refund_id,
                amount=parse_money(refund.amount),
                captures=tuple(map(parse_capture, refund.captures)),
                create_time=instant(refund.create_time),
                wallet_customer_id=refund.wallet_customer_id,
                fee_returned_minor=refund.fee_returned.amount_minor,
                within_balance=refund.within_balance,
            )
        case "wallet_hold":
            return parse_hold(message.wallet_hold)
        case "wallet_void":
            void = message.wallet_void
            return WalletVoidFact(
                attempt_id=void.attempt_id, merchant_id=void.merchant_id, void_time=instant(void.void_time)
            )
        case "balance_transaction":
            return parse_balance_transaction(message.balance_transaction)
        case "write_off":
            off = message.write_off
            return WriteOffFact(
                item_id=off.item_id, amount=parse_money(off.amount), decide_time=instant(off.decide_time)
            )
        case "dispute_opened":
            return _dispute_opened(message.dispute_opened)
        case "dispute_ended":
            ended = message.dispute_ended
            return DisputeEndedFact(
                opened=_dispute_opened(ended.opened), won=ended.won, end_time=instant(ended.end_time)
            )
        case "dispute_funds":
            funds = message.dispute_funds
            return DisputeFundsFact(
                balance_transaction_id=funds.balance_transaction_id,
                owner_id=funds.owner_id,
                amount=parse_money(funds.amount),
                fee=parse_money(funds.fee),
                fee_from_owner=funds.fee_from_owner,
                create_time=instant(funds.create_time),
            )
        case "suspense":
            return parse_suspense(message.suspense)
        case "suspense_refund":
            back = message.suspense_refund
            return SuspenseRefundFact(
                refund_id=back.refund_id, suspense=parse_suspense(back.suspense), create_time=instant(back.create_time)
            )
        case _:
            failed = message.refund_failed
            return RefundFailedFact(
                refund_id=failed.refund_id, merchant_id=failed.merchant_id, fail_time=instant(failed.fail_time)
            )


def _dispute_opened(message: ledger_pb2.DisputeOpenedFact) -> DisputeOpenedFact:
    return DisputeOpenedFact(
        dispute_id=message.dispute_id,
        stage=payments_pb2.Dispute.Stage.Name(message.stage),
        owner_id=message.owner_id,
        amount=parse_money(message.amount),
        open_time=instant(message.open_time),
    )


def facts_of_dispute(
    dispute: payments_pb2.Dispute, *, customer_id: str, occur_time: datetime
) -> list[DisputeOpenedFact | DisputeFundsFact | DisputeEndedFact]:
    """Return the facts that a dispute's state tells, those of its earlier versions among them: what is booked stays as it is."""
    owner_id = dispute.merchant_id or customer_id
    facts: list[DisputeOpenedFact | DisputeFundsFact | DisputeEndedFact] = [
        DisputeFundsFact(
            balance_transaction_id=one.id,
            owner_id=owner_id,
            amount=parse_money(one.amount),
            fee=parse_money(one.fee),
            fee_from_owner=dispute.fee_payer == payments_pb2.Dispute.MERCHANT,
            create_time=instant(one.create_time),
        )
        for one in dispute.movements
    ]
    if dispute.stage == payments_pb2.Dispute.INQUIRY:
        return facts
    opened = DisputeOpenedFact(
        dispute_id=dispute.id,
        stage=payments_pb2.Dispute.Stage.Name(dispute.stage),
        owner_id=owner_id,
        amount=parse_money(dispute.amount_at_risk),
        open_time=instant(dispute.stage_time),
    )
    if dispute.state in (payments_pb2.Dispute.WON, payments_pb2.Dispute.LOST, payments_pb2.Dispute.PREVENTED):
        won = dispute.state == payments_pb2.Dispute.WON
        return [*facts, DisputeEndedFact(opened=opened, won=won, end_time=occur_time)]
    return [opened, *facts]


def render_balances(merchant_id: str, accounts: Iterable[Account]) -> wallets_pb2.Balances:
    """Return a merchant's balances, one per currency."""
    sums: dict[str, dict[AccountKind, int]] = {}
    for account in accounts:
        sums.setdefault(account.currency, {})[account.kind] = account.balance
    message = wallets_pb2.Balances(merchant_id=merchant_id)
    for currency in sorted(sums):
        kinds = sums[currency]
        message.balances.add(
            currency=currency,
            pending=money(Money(amount_minor=kinds.get(AccountKind.MERCHANT_PENDING, 0), currency=currency)),
            available=money(Money(amount_minor=kinds.get(AccountKind.MERCHANT_AVAILABLE, 0), currency=currency)),
            reserved=money(Money(amount_minor=kinds.get(AccountKind.MERCHANT_RESERVE, 0), currency=currency)),
            disputed=money(Money(amount_minor=kinds.get(AccountKind.MERCHANT_DISPUTED, 0), currency=currency)),
        )
    return message
