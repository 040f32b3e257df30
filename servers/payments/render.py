"""The domain's records as messages of the contract."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from paymesh.payments.v1 import payments_pb2, reconciliation_pb2
from paymesh.type.v1 import money_pb2

from servers.payments.client_secrets import ClientSecrets
from servers.payments.declines import for_payers
from servers.payments.domain import (
    PAYMENT,
    REFUND,
    SETUP,
    Attempt,
    AttemptState,
    BalanceTransaction,
    Capture,
    Decline,
    Dispute,
    Mandate,
    MerchantFeePlan,
    NextAction,
    Payment,
    PaymentMethod,
    PaymentSettings,
    PaymentState,
    Purpose,
    ReconciliationItem,
    Refund,
    SetupIntent,
    SetupState,
    SuspenseItem,
)
from servers.runtime.render import etag, money, stamp
from servers.runtime.sealed import Sealer


class Renderer:
    """Renders for one deployment, which runs in one mode."""

    def __init__(
        self, *, livemode: bool, secrets: ClientSecrets, sealer: Sealer, stripe_publishable_key: str = ""
    ) -> None:
        self._livemode = livemode
        self._secrets = secrets
        self._sealer = sealer
        self._stripe_publishable_key = stripe_publishable_key

    def method(self, method: PaymentMethod) -> payments_pb2.PaymentMethod:
        """Return a payment method as a message."""
        message = payments_pb2.PaymentMethod(
            id=method.id,
            create_time=stamp(method.create_time),
            update_time=stamp(method.update_time),
            resource_version=method.version,
            etag=etag(method.version),
            customer_id=method.owner_id,
            state=payments_pb2.PaymentMethod.State.Value(method.state.value),
            livemode=self._livemode,
            is_default=method.is_default,
        )
        if (card := method.card) is not None:
            message.card.brand = card.brand
            message.card.last4 = card.last4
            message.card.exp_month = card.exp_month
            message.card.exp_year = card.exp_year
            message.card.funding = card.funding
            message.card.country = card.country
        return message

    def payment_with_secret(self, payment: Payment) -> payments_pb2.Payment:
        """Return a payment with the secret by which whoever holds it may pay: for its merchant only."""
        message = self.payment(payment)
        message.client_secret = self._secrets.of(payment.id)
        return message

    def payment(self, payment: Payment, *, secrets: bool = True, payer: bool = False) -> payments_pb2.Payment:
        """Return a payment as a message; without `secrets` nothing in it lets anybody act, and for a `payer` its declines tell no
        more than a cardholder may know. A top-up has no other party."""
        currency = payment.amount.currency
        message = payments_pb2.Payment(
            id=payment.id,
            create_time=stamp(payment.create_time),
            update_time=stamp(payment.update_time),
            resource_version=payment.version,
            etag=etag(payment.version),
            merchant_id=payment.merchant_id,
            customer_id=payment.customer_id,
            purpose=payments_pb2.Payment.Purpose.Value(payment.purpose.value),
            top_up_id=payment.top_up_id,
            payment_method_id=payment.payment_method_id,
            statement_descriptor_suffix=payment.statement_descriptor_suffix,
            amount=money(payment.amount),
            state=payments_pb2.Payment.State.Value(payment.state.value),
            amount_captured=_minor(payment.captured_minor, currency),
            amount_refunded=_minor(payment.refunded_minor, currency),
            amount_refund_pending=_minor(payment.refund_pending_minor, currency),
            certainty=payments_pb2.CERTAIN if payment.certain else payments_pb2.UNKNOWN,
            captures=[capture_message(capture) for capture in payment.captures],
            suspense_items=[_suspense_message(item) for item in payment.suspense],
            available_actions=_actions(payment),
            description=payment.description,
            metadata=payment.metadata,
            livemode=self._livemode,
            capture_method=payments_pb2.Payment.CaptureMethod.Value(payment.capture_method.value),
            amount_capturable=_minor(payment.capturable_minor, currency),
            amount_capture_pending=_minor(payment.capture_pending_minor, currency),
            multicapture_available=payment.multicapture,
            amount_disputed=_minor(payment.disputed_minor, currency),
            over_exposure=_minor(payment.over_exposure_minor, currency),
        )
        if payment.capture_before_time is not None:
            message.authorization_expire_time.CopyFrom(stamp(payment.capture_before_time))
            message.capture_before_time.CopyFrom(message.authorization_expire_time)
        if payment.capture_deadline is not None:
            message.capture_before.CopyFrom(stamp(payment.capture_deadline))
        if payment.review is not None:
            message.review.state = payments_pb2.Payment.Review.State.Value(payment.review.state.value)
            message.review.reasons.extend(payment.review.reasons)
            message.review.expire_time.CopyFrom(stamp(payment.review.expire_time))
        if payment.cancellation_reason:
            message.cancellation_reason = payments_pb2.Payment.CancellationReason.Value(payment.cancellation_reason)
        if (attempt := payment.latest_attempt) is not None:
            payer = payer or payment.purpose is Purpose.TOP_UP
            message.latest_attempt.CopyFrom(attempt_message(attempt, payer=payer))
            waits = payment.state is PaymentState.REQUIRES_ACTION and attempt.state is AttemptState.REQUIRES_ACTION
            if waits:
                self._next_action(message.next_action, attempt.id, attempt.next_action, secrets=secrets)
        return message

    def setup(
        self, setup: SetupIntent, *, secrets: bool = True, client_secret: bool = False, payer: bool = False
    ) -> payments_pb2.SetupIntent:
        """Return a setup intent as a message; with its `client_secret` for whoever created it only; for a `payer` as `payment`."""
        message = payments_pb2.SetupIntent(
            id=setup.id,
            create_time=stamp(setup.create_time),
            update_time=stamp(setup.update_time),
            resource_version=setup.version,
            etag=etag(setup.version),
            customer_id=setup.owner_id,
            merchant_id=setup.merchant_id,
            usage=payments_pb2.Mandate.Usage.Value(setup.usage.value),
            state=payments_pb2.SetupIntent.State.Value(setup.state.value),
            certainty=payments_pb2.UNKNOWN if setup.uncertain else payments_pb2.CERTAIN,
            payment_method_id=setup.payment_method_id,
            mandate_id=setup.mandate_id,
            client_secret=self._secrets.of(setup.id) if client_secret else "",
            available_actions=SETUP.available_actions(setup.state),
            livemode=self._livemode,
        )
        if setup.state is SetupState.REQUIRES_ACTION:
            self._next_action(message.next_action, setup.id, setup.next_action, secrets=secrets)
        if setup.last_decline is not None:
            decline = for_payers(setup.last_decline) if payer or not setup.merchant_id else setup.last_decline
            message.last_decline.CopyFrom(_decline(decline, setup.update_time))
        return message

    def dispute(self, dispute: Dispute) -> payments_pb2.Dispute:
        """Return a dispute as a message."""
        message = payments_pb2.Dispute(
            id=dispute.id,
            create_time=stamp(dispute.create_time),
            update_time=stamp(dispute.update_time),
            resource_version=dispute.version,
            etag=etag(dispute.version),
            payment_id=dispute.payment_id,
            merchant_id=dispute.merchant_id,
            top_up_id=dispute.top_up_id,
            amount=money(dispute.amount),
            amount_at_risk=money(dispute.at_risk),
            stage=payments_pb2.Dispute.Stage.Value(dispute.stage.value),
            state=payments_pb2.Dispute.State.Value(dispute.state.value),
            certainty=payments_pb2.UNKNOWN if dispute.accepting else payments_pb2.CERTAIN,
            reason=dispute.reason,
            has_evidence=dispute.has_evidence,
            past_due=dispute.past_due,
            submission_count=dispute.submission_count,
            fee=money(dispute.fee) if dispute.fee is not None else None,
            fee_payer=payments_pb2.Dispute.FeePayer.Value(dispute.fee_payer.value),
            stage_time=stamp(dispute.stage_time),
            movements=[
                payments_pb2.Dispute.FundsMovement(
                    id=one.id, amount=money(one.amount), fee=money(one.fee), create_time=stamp(one.create_time)
                )
                for one in dispute.movements
            ],
            available_actions=dispute.available_actions,
            livemode=self._livemode,
        )
        if dispute.evidence_due_time is not None:
            message.evidence_due_time.CopyFrom(stamp(dispute.evidence_due_time))
        return message

    def _next_action(
        self, message: payments_pb2.NextAction, identifier: str, action: NextAction, *, secrets: bool
    ) -> None:
        if not action.sealed_secret:
            message.type = payments_pb2.NextAction.REDIRECT
            message.redirect_url = action.url
            return
        message.type = payments_pb2.NextAction.STRIPE_SDK
        message.stripe_publishable_key = self._stripe_publishable_key
        if secrets:
            place = next_action_place(identifier)
            message.stripe_client_secret = self._sealer.open(action.sealed_secret, place=place).decode()


def capture_message(capture: Capture) -> payments_pb2.Capture:
    """Return a capture as a message."""
    return payments_pb2.Capture(
        id=capture.id,
        amount=money(capture.amount),
        fee=money(capture.fee),
        fee_plan_version=capture.fee_plan_version,
        capture_time=stamp(capture.capture_time),
        settlement_delay_seconds=capture.settlement_delay_seconds,
        fee_refund=payments_pb2.FeePlan.FeeRefund.Value(capture.fee_refund.value),
        suspense_item_id=capture.suspense_item_id,
    )


def _suspense_message(item: SuspenseItem) -> payments_pb2.SuspenseItem:
    return payments_pb2.SuspenseItem(
        id=item.id,
        amount=money(item.amount),
        cause=payments_pb2.SuspenseItem.Cause.Value(item.cause.value),
        create_time=stamp(item.create_time),
    )


def attempt_message(attempt: Attempt, *, payer: bool = False) -> payments_pb2.Attempt:
    """Return an attempt as a message; for a `payer`, without what only its merchant may know of a decline."""
    message = payments_pb2.Attempt(
        id=attempt.id,
        create_time=stamp(attempt.create_time),
        update_time=stamp(attempt.update_time),
        payment_id=attempt.payment_id,
        payment_method_id=attempt.source.payment_method_id,
        wallet_id=attempt.source.wallet_id,
        off_session=attempt.manner.off_session,
        state=payments_pb2.Attempt.State.Value(attempt.state.value),
    )
    if attempt.decline is not None:
        decline = for_payers(attempt.decline) if payer else attempt.decline
        message.decline.CopyFrom(_decline(decline, attempt.update_time))
    return message


def _decline(decline: Decline, time: datetime) -> payments_pb2.Decline:
    message = payments_pb2.Decline(
        code=decline.code,
        message=decline.message,
        recommended_action=payments_pb2.Decline.RecommendedAction.Value(decline.recommended_action),
        network_decline_code=decline.network_code,
    )
    if decline.retry_after is not None:
        message.retry_after_time.CopyFrom(stamp(time + decline.retry_after))
    return message


def mandate_message(mandate: Mandate) -> payments_pb2.Mandate:
    """Return a mandate as a message."""
    message = payments_pb2.Mandate(
        id=mandate.id,
        create_time=stamp(mandate.create_time),
        update_time=stamp(mandate.update_time),
        resource_version=mandate.version,
        etag=etag(mandate.version),
        customer_id=mandate.owner_id,
        merchant_id=mandate.merchant_id,
        payment_method_id=mandate.payment_method_id,
        usage=payments_pb2.Mandate.Usage.Value(mandate.usage.value),
        state=payments_pb2.Mandate.State.Value(mandate.state.value),
    )
    if mandate.revoke_time is not None:
        message.revoke_time.CopyFrom(stamp(mandate.revoke_time))
    return message


def settings_message(settings: PaymentSettings) -> payments_pb2.PaymentSettings:
    """Return a merchant's settings as a message."""
    message = payments_pb2.PaymentSettings(
        merchant_id=settings.merchant_id,
        return_url_origins=settings.return_url_origins,
        refunds_wait_for_balance=settings.refunds_wait,
        etag=etag(settings.version),
    )
    if settings.update_time is not None:
        message.update_time.CopyFrom(stamp(settings.update_time))
    return message


def refund_message(refund: Refund) -> payments_pb2.Refund:
    """Return a refund as a message."""
    message = payments_pb2.Refund(
        id=refund.id,
        create_time=stamp(refund.create_time),
        update_time=stamp(refund.update_time),
        resource_version=refund.version,
        etag=etag(refund.version),
        payment_id=refund.payment_id,
        merchant_id=refund.merchant_id,
        amount=money(refund.amount),
        reason=payments_pb2.Refund.Reason.Value(refund.reason),
        state=payments_pb2.Refund.State.Value(refund.state.value),
        certainty=payments_pb2.UNKNOWN if refund.uncertain else payments_pb2.CERTAIN,
        failure_reason=refund.failure_reason,
        available_actions=REFUND.available_actions(refund.state) if refund.cancelable else (),
        metadata=refund.metadata,
        fee_returned=money(refund.fee_returned),
        suspense_item_id=refund.suspense_item_id,
    )
    if refund.pending_reason:
        message.pending_reason = payments_pb2.Refund.PendingReason.Value(refund.pending_reason)
    return message


def reconciliation_message(
    item: ReconciliationItem, lines: Iterable[BalanceTransaction] = ()
) -> reconciliation_pb2.ReconciliationItem:
    """Return a reconciliation item as a message."""
    proto = reconciliation_pb2.ReconciliationItem
    message = proto(
        id=item.id,
        create_time=stamp(item.create_time),
        update_time=stamp(item.update_time),
        resource_version=item.version,
        etag=etag(item.version),
        owner_id=item.owner_id,
        kind=proto.Kind.Value(item.kind.value),
        state=proto.State.Value(item.state.value),
        break_type=proto.BreakType.Value(item.break_type.value or "BREAK_TYPE_UNSPECIFIED"),
        match_mode=proto.MatchMode.Value(item.match_mode.value or "MATCH_MODE_UNSPECIFIED"),
        payment_id=item.payment_id,
        source_id=item.source_id,
        stripe_source_id=item.stripe_source_id,
        expected=money(item.expected) if item.expected is not None else None,
        actual=money(item.actual) if item.actual is not None else None,
        due_time=stamp(item.due_time),
        reason=item.reason,
        resolved_by=item.resolved_by,
        write_off=money(item.write_off) if item.write_off is not None else None,
    )
    for line in lines:
        message.lines.add(
            id=line.id,
            type=line.type,
            amount=money(line.amount),
            fee=money(line.fee),
            create_time=stamp(line.create_time),
        )
    return message


def fee_plan_message(own: MerchantFeePlan) -> payments_pb2.FeePlan:
    """Return a merchant's fee plan as a message."""
    plan = own.plan
    message = payments_pb2.FeePlan(
        merchant_id=own.merchant_id,
        version=plan.version,
        basis_points=plan.basis_points,
        fixed=[_minor(amount, currency) for currency, amount in sorted(plan.fixed_minor.items())],
        settlement_delay_seconds=plan.settlement_delay_seconds,
        fee_refund=payments_pb2.FeePlan.FeeRefund.Value(plan.fee_refund.value),
        reason=own.reason,
        set_by=own.set_by,
        resource_version=own.number,
        etag=etag(own.number),
    )
    if own.effective_time is not None:
        message.effective_time.CopyFrom(stamp(own.effective_time))
    if own.create_time is not None:
        message.create_time.CopyFrom(stamp(own.create_time))
    return message


def _minor(amount_minor: int, currency: str) -> money_pb2.Money:
    return money_pb2.Money(amount_minor=amount_minor, currency=currency)


def _actions(payment: Payment) -> tuple[str, ...]:
    """Return the verbs that its parties may use; a top-up has none: wallets deals with it."""
    if payment.purpose is Purpose.TOP_UP:
        return ()
    actions = PAYMENT.available_actions(payment.state)
    return actions if payment.refundable.amount_minor else tuple(action for action in actions if action != "refund")


def next_action_place(identifier: str) -> str:
    """Return what the sealed secret of an attempt's or setup intent's next action is bound to."""
    return f"next_action|{identifier}"
