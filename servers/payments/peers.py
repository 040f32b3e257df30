"""The servers that payments calls: the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc
from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc

from servers.kernel.invariant import invariant
from servers.kernel.money import Money
from servers.payments.domain import (
    Attempt,
    BalanceTransaction,
    Capture,
    FeeRefund,
    Payment,
    ReconciliationItem,
    Refund,
    SuspenseItem,
)
from servers.runtime.channels import Channels, PeerUnavailable, outgoing_metadata, peer_refusal
from servers.runtime.outbound import Failure
from servers.runtime.render import money, parse_money, stamp

FEE_CODE: Final = "capture.fee"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """What is known of a wallet."""

    id: str
    customer_id: str
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the ledger answered: its verdict, and the fee that it has in its books for a capture."""

    verdict: str
    fee: Money | None = None

    @property
    def done(self) -> bool:
        """Whether the fact is in the books, now or since an earlier call."""
        return self.verdict in ("CREATED", "EXISTS")


def classify(error: Exception) -> tuple[Failure, float | None] | None:
    """Say what an error of the ledger means for a call: it may have taken effect, and may be sent again at any time."""
    return (Failure.UNKNOWN, None) if isinstance(error, PeerUnavailable) else None


class LedgerPeer:
    """Wallets' ledger. Every call may raise PeerUnavailable, after which the same call may be repeated: facts carry their ids."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def wallet(self, wallet_id: str) -> Wallet | None:
        """Return a wallet, if there is one."""
        request = ledger_pb2.LookupWalletsRequest(wallet_ids=[wallet_id])
        try:
            found = (await self._stub().LookupWallets(request, metadata=outgoing_metadata())).wallets
        except grpc.aio.AioRpcError as error:
            raise peer_refusal("wallets", error) or error from error
        if not found:
            return None
        return Wallet(id=wallet_id, customer_id=found[0].customer_id, currency=found[0].account.currency)

    async def hold(self, payment: Payment, attempt: Attempt, expire_time: datetime) -> Booked:
        """Hold a payment's amount in a wallet."""
        return await self._post(ledger_pb2.PostFactRequest(wallet_hold=_hold(payment, attempt, expire_time)))

    async def capture_held(self, payment: Payment, attempt: Attempt, capture: Capture, expire_time: datetime) -> Booked:
        """Take money that a wallet holds; where nothing is held yet, hold and take at once."""
        fact = _capture(payment, capture)
        fact.hold.CopyFrom(_hold(payment, attempt, expire_time))
        return await self._post(ledger_pb2.PostFactRequest(capture=fact))

    async def void(self, payment: Payment, attempt: Attempt, time: datetime) -> Booked:
        """Give back what a wallet still holds for an attempt."""
        fact = ledger_pb2.WalletVoidFact(attempt_id=attempt.id, merchant_id=payment.merchant_id, void_time=stamp(time))
        return await self._post(ledger_pb2.PostFactRequest(wallet_void=fact))

    async def reserve_refund(self, payment: Payment, refund: Refund, *, within_balance: bool = False) -> Booked:
        """Book the refund before Stripe is asked: an event could not refuse. To a wallet the money goes at once; what was in
        suspense goes back from there. `within_balance` refuses what the merchant's balance does not cover, instead of taking it
        below zero."""
        if refund.suspense_item_id:
            item = next(item for item in payment.suspense if item.id == refund.suspense_item_id)
            back = ledger_pb2.SuspenseRefundFact(
                refund_id=refund.id, suspense=_suspense(payment, item), create_time=stamp(refund.create_time)
            )
            return await self._post(ledger_pb2.PostFactRequest(suspense_refund=back))
        fact = ledger_pb2.RefundCreatedFact(
            refund_id=refund.id,
            amount=money(refund.amount),
            captures=[_capture(payment, capture) for capture in payment.captures],
            create_time=stamp(refund.create_time),
            wallet_customer_id=payment.customer_id if payment.wallet_id else "",
            fee_returned=money(refund.fee_returned),
            within_balance=within_balance,
        )
        return await self._post(ledger_pb2.PostFactRequest(refund_created=fact))

    async def book_balance_transaction(
        self, line: BalanceTransaction, *, matched: Money, counterpart: str, explained: bool
    ) -> None:
        """Move the clearing account by what Stripe's balance moved by."""
        fact = ledger_pb2.BalanceTransactionFact(
            balance_transaction_id=line.id,
            amount=money(line.amount),
            fee=money(line.fee),
            matched=money(matched),
            counterpart=ledger_pb2.Account.Kind.Value(counterpart or "KIND_UNSPECIFIED"),
            effective_time=stamp(line.create_time),
            explained=explained,
        )
        booked = await self._post(ledger_pb2.PostFactRequest(balance_transaction=fact))
        invariant(booked.done, "a balance transaction was refused", line_id=line.id, verdict=booked.verdict)

    async def book_write_off(self, item: ReconciliationItem) -> None:
        """Book what a person wrote off."""
        assert item.write_off is not None
        fact = ledger_pb2.WriteOffFact(
            item_id=item.id, amount=money(item.write_off), decide_time=stamp(item.update_time)
        )
        booked = await self._post(ledger_pb2.PostFactRequest(write_off=fact))
        invariant(booked.done, "a write-off was refused", item_id=item.id, verdict=booked.verdict)

    def _stub(self) -> ledger_pb2_grpc.LedgerServiceAsyncStub:
        stub: ledger_pb2_grpc.LedgerServiceAsyncStub = self._channels.stub("wallets", ledger_pb2_grpc.LedgerServiceStub)
        return stub

    async def _post(self, request: ledger_pb2.PostFactRequest) -> Booked:
        try:
            answer = await self._stub().PostFact(request, metadata=outgoing_metadata())
        except grpc.aio.AioRpcError as error:
            raise peer_refusal("wallets", error) or error from error
        fees = [transfer.amount for transfer in answer.transfers if transfer.code == FEE_CODE]
        return Booked(
            verdict=ledger_pb2.Verdict.Name(answer.verdict), fee=parse_money(fees[0]) if len(fees) == 1 else None
        )


def _suspense(payment: Payment, item: SuspenseItem) -> ledger_pb2.SuspenseFact:
    return ledger_pb2.SuspenseFact(
        suspense_item_id=item.id,
        owner_id=payment.owner_id,
        amount=money(item.amount),
        find_time=stamp(item.create_time),
    )


def _capture(payment: Payment, capture: Capture) -> ledger_pb2.CaptureFact:
    item = next((item for item in payment.suspense if item.id == capture.suspense_item_id), None)
    return ledger_pb2.CaptureFact(
        suspense=_suspense(payment, item) if item is not None else None,
        capture_id=capture.id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        amount=money(capture.amount),
        fee=money(capture.fee),
        capture_time=stamp(capture.capture_time),
        settlement_delay_seconds=capture.settlement_delay_seconds,
        fee_returnable=capture.fee_refund is FeeRefund.RETURNED,
    )


def _hold(payment: Payment, attempt: Attempt, expire_time: datetime) -> ledger_pb2.WalletHoldFact:
    return ledger_pb2.WalletHoldFact(
        attempt_id=attempt.id,
        payment_id=payment.id,
        merchant_id=payment.merchant_id,
        customer_id=payment.customer_id,
        wallet_id=attempt.source.wallet_id,
        amount=money(payment.amount),
        create_time=stamp(attempt.create_time),
        expire_time=stamp(expire_time),
    )
