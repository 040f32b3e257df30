"""What the methods of all resources share: who asks, and what they may see."""

from __future__ import annotations

from paymesh.payments.v1 import payments_pb2, payments_pb2_grpc
from paymesh.type.v1 import money_pb2

from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.money import Money, is_currency
from servers.payments import store
from servers.payments.client_secrets import ClientSecrets
from servers.payments.domain import Manner, Payment, Refund, Usage
from servers.payments.gateway_stripe import step_of
from servers.payments.render import Renderer, refund_message
from servers.payments.usecases import Decider, Deps, Payer
from servers.payments.webhooks import Webhooks
from servers.runtime.call import PrincipalKind, current_call
from servers.runtime.pagination import Pages
from servers.runtime.render import parse_money


class Base(payments_pb2_grpc.PaymentServiceServicer):
    """The parts of the service, and its view of the caller."""

    def __init__(
        self, deps: Deps, renderer: Renderer, pages: Pages, webhooks: Webhooks, secrets: ClientSecrets
    ) -> None:
        self._deps = deps
        self._renderer = renderer
        self._pages = pages
        self._webhooks = webhooks
        self._secrets = secrets

    def _payer(self, identifier: str, client_secret: str) -> Payer:
        """Return who confirms or reads something by its id, with or without its secret. Raises FieldInvalid for a shopper
        without one."""
        principal = current_call().principal
        opened = bool(client_secret) and self._secrets.opens(identifier, client_secret)
        match principal.kind:
            case PrincipalKind.CUSTOMER:
                return Payer(customer_id=principal.subject, has_secret=opened, limit_key=principal.subject)
            case PrincipalKind.PAYMENT_CLIENT:
                if not client_secret:
                    raise FieldInvalid.of("client_secret", "is needed with a publishable key")
                # One address that tries many cards is slowed down, whatever payments it tries them on.
                limit_key = f"{principal.merchant_id}|{current_call().client_address}"
                return Payer(merchant_id=principal.merchant_id, shopper=True, has_secret=opened, limit_key=limit_key)
            case _:
                return Payer(merchant_id=principal.merchant_id, has_secret=opened, limit_key=identifier)

    def _shown(self, payment: Payment) -> payments_pb2.Payment:
        """Return a payment as its caller may see it: what the platform keeps, the merchant's notes and its disputes are
        not the payer's."""
        payer = is_payer()
        message = self._renderer.payment(payment, payer=payer)
        if payer:
            message.metadata.clear()
            message.ClearField("review")
            message.ClearField("amount_disputed")
            message.ClearField("over_exposure")
            own = [action for action in message.available_actions if action == "confirm"]
            message.available_actions[:] = own
            for capture in message.captures:
                capture.ClearField("fee")
                capture.ClearField("fee_plan_version")
                capture.ClearField("fee_refund")
                capture.ClearField("settlement_delay_seconds")
        return message

    def _shown_refund(self, refund: Refund) -> payments_pb2.Refund:
        """Return a refund as its caller may see it."""
        message = refund_message(refund)
        if is_payer():
            message.ClearField("fee_returned")
        return message

    async def _visible(self, payment_id: str) -> Payment:
        owner_id, customer_id = owner()
        async with self._deps.db.read() as conn:
            payment = await store.payment(conn, payment_id, owner_id=owner_id, customer_id=customer_id)
        if payment is None:
            raise ResourceNotFound(payment_id)
        return payment


def is_payer() -> bool:
    """Tell whether the caller is who pays, and not the merchant."""
    return current_call().principal.kind in (PrincipalKind.CUSTOMER, PrincipalKind.PAYMENT_CLIENT)


def owner() -> tuple[str | None, str | None]:
    """Return (merchant, None) or (None, customer): whose payments the caller may see; for staff, everybody's."""
    principal = current_call().principal
    if principal.kind is PrincipalKind.STAFF:
        return None, None
    if principal.kind is PrincipalKind.CUSTOMER:
        return None, principal.subject
    return principal.merchant_id, None


def decider_of(reason: str) -> Decider:
    """Return who of the staff decides, and why."""
    call = current_call()
    return Decider(
        actor_id=call.principal.subject, actor_role=call.principal.role, reason=reason, request_id=call.request_id
    )


def amount_of(message: money_pb2.Money, field: str = "amount") -> Money:
    """Return the amount that a request names. Raises FieldInvalid for one that no card processor takes."""
    step = step_of(message.currency) if is_currency(message.currency) else 1
    if message.amount_minor % step:
        raise FieldInvalid.of(f"{field}.amount_minor", f"must be a multiple of {step} in {message.currency}")
    return parse_money(message)


def usage_of(value: payments_pb2.Mandate.Usage.ValueType) -> Usage:
    """Return the use of a card that a request names."""
    return Usage(payments_pb2.Mandate.Usage.Name(value)) if value else Usage.NONE


def manner_of(
    *, return_url: str, use_stripe_sdk: bool, off_session: bool = False, save_for: Usage = Usage.NONE
) -> Manner:
    """Return how a confirm is made. Raises FieldInvalid where it cannot be."""
    if use_stripe_sdk and (return_url or off_session):
        raise FieldInvalid.of("use_stripe_sdk", "goes without return_url and off_session")
    if off_session and return_url:
        raise FieldInvalid.of("return_url", "is of no use off_session: nobody is there to go anywhere")
    return Manner(off_session=off_session, return_url=return_url, use_stripe_sdk=use_stripe_sdk, save_for=save_for)
