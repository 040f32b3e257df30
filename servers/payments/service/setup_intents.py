"""Setup intents and mandates: proto in, use case, proto out."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.api import httpbody_pb2
from paymesh.payments.v1 import payments_pb2

from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.payments import store
from servers.payments.domain import SetupIntent, Usage
from servers.payments.render import mandate_message, settings_message
from servers.payments.service.base import Base, is_payer, manner_of, usage_of
from servers.payments.service.returning import send_on
from servers.payments.usecases import (
    confirm_setup,
    create_setup,
    learn_setup,
    refresh_setup,
    replace_settings,
    revoke_mandate,
    visible_setup,
)
from servers.runtime.call import PrincipalKind, current_call
from servers.runtime.render import expected_version
from servers.runtime.requests import idempotent


class SetupIntents(Base):
    """Saving cards for later, and what that permits."""

    async def CreateSetupIntent(
        self, request: payments_pb2.CreateSetupIntentRequest, context: Any
    ) -> payments_pb2.SetupIntent:
        """Begin to save a card."""
        principal = current_call().principal
        own = principal.kind is PrincipalKind.CUSTOMER
        if own and request.customer_id not in ("", principal.subject):
            raise FieldInvalid.of("customer_id", "is left empty by a user, who saves a card of their own")
        if not own and not request.customer_id:
            raise FieldInvalid.of("customer_id", "is needed: a saved card belongs to a user")

        def render(setup: SetupIntent) -> payments_pb2.SetupIntent:
            return self._renderer.setup(setup, client_secret=True)

        ticket = idempotent(request, render=render, secret=True)
        setup = await create_setup(
            self._deps,
            ticket,
            owner_id=principal.subject if own else request.customer_id,
            merchant_id="" if own else principal.merchant_id,
            usage=usage_of(request.usage) if request.usage else Usage.OFF_SESSION,
        )
        return render(setup)

    async def GetSetupIntent(
        self, request: payments_pb2.GetSetupIntentRequest, context: Any
    ) -> payments_pb2.SetupIntent:
        """Return a setup intent; one whose outcome is open is asked about."""
        payer = self._payer(request.setup_intent_id, request.client_secret)
        async with self._deps.db.read() as conn:
            setup = await store.setup(conn, request.setup_intent_id)
        if setup is None or not visible_setup(setup, payer):
            raise ResourceNotFound(request.setup_intent_id)
        setup = await refresh_setup(self._deps, setup)
        return self._renderer.setup(setup, client_secret=not payer.shopper, payer=is_payer())

    async def ConfirmSetupIntent(
        self, request: payments_pb2.ConfirmSetupIntentRequest, context: Any
    ) -> payments_pb2.SetupIntent:
        """Confirm a setup intent."""
        # Whoever confirms is who pays.
        render = partial(self._renderer.setup, payer=True)
        ticket = idempotent(request, render=render, secret=True)
        setup = await confirm_setup(
            self._deps,
            ticket,
            setup_id=request.setup_intent_id,
            payer=self._payer(request.setup_intent_id, request.client_secret),
            stripe_method_id=request.stripe_payment_method_id,
            manner=manner_of(return_url=request.return_url, use_stripe_sdk=request.use_stripe_sdk),
        )
        return render(setup)

    async def ReturnSetupIntent(
        self, request: payments_pb2.ReturnSetupIntentRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Send a cardholder on who comes back from their bank."""
        async with self._deps.db.read() as conn:
            setup = await store.setup(conn, request.setup_intent_id)
        if setup is None:
            raise ResourceNotFound(request.setup_intent_id)
        await learn_setup(self._deps, setup.id)
        return await send_on(context, setup.manner.return_url, "setup_intent_id", setup.id)

    async def ListMandates(
        self, request: payments_pb2.ListMandatesRequest, context: Any
    ) -> payments_pb2.ListMandatesResponse:
        """List the mandates that the user gave or the merchant holds."""
        page, principal = self._pages.read(request), current_call().principal
        own = principal.kind is PrincipalKind.CUSTOMER
        async with self._deps.db.read() as conn:
            found = await store.mandates(
                conn,
                owner_id=principal.subject if own else None,
                merchant_id=None if own else principal.merchant_id,
                method_id=request.payment_method_id,
                state=payments_pb2.Mandate.State.Name(request.state) if request.state else "",
                before=page.before,
                limit=page.size + 1,
            )
        return payments_pb2.ListMandatesResponse(
            mandates=[mandate_message(mandate) for mandate in found[: page.size]],
            next_page_token=self._pages.token(request, [mandate.id for mandate in found], page.size),
        )

    async def RevokeMandate(self, request: payments_pb2.RevokeMandateRequest, context: Any) -> payments_pb2.Mandate:
        """Take a mandate back."""
        ticket = idempotent(request, render=mandate_message)
        owner_id = current_call().principal.subject
        return mandate_message(await revoke_mandate(self._deps, ticket, owner_id, request.mandate_id))

    async def GetPaymentSettings(
        self, request: payments_pb2.GetPaymentSettingsRequest, context: Any
    ) -> payments_pb2.PaymentSettings:
        """Return the merchant's settings."""
        async with self._deps.db.read() as conn:
            return settings_message(await store.payment_settings(conn, current_call().principal.merchant_id))

    async def ReplacePaymentSettings(
        self, request: payments_pb2.ReplacePaymentSettingsRequest, context: Any
    ) -> payments_pb2.PaymentSettings:
        """Replace the merchant's settings."""
        ticket = idempotent(request, render=settings_message)
        settings = await replace_settings(
            self._deps,
            ticket,
            current_call().principal.merchant_id,
            request.return_url_origins,
            expected_version(request.etag),
            refunds_wait=request.refunds_wait_for_balance,
        )
        return settings_message(settings)
