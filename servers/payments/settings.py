"""Settings of the payments server."""

from __future__ import annotations

from pydantic import SecretStr, field_validator

from servers.payments.domain import FeePlan, is_version_of_merchant
from servers.runtime.settings import ServerSettings


class PaymentsSettings(ServerSettings):
    """What the payments server needs beyond the common settings."""

    stripe_api_key: SecretStr
    stripe_api_base: str = ""
    """The address of the sandbox; empty for Stripe itself."""
    stripe_webhook_secrets: SecretStr
    """Comma-separated: two while one is being replaced."""
    fee_plan: FeePlan
    """The plan of merchants without one of their own, as JSON: {"version": "2026-11", "basis_points": 150, "fixed_minor": {"USD":
    25}}, and optionally "fee_refund" and "settlement_delay_seconds". Its version changes with its terms."""
    client_secret_key: SecretStr
    """32 bytes in base64: what client secrets are derived with."""
    public_url: str
    """Where the edge answers, for example "https://pay.example": Stripe sends cardholders back there."""
    return_url_origins: tuple[str, ...] = ()
    """Where cardholders may be sent on to for every merchant, and for users themselves: the platform's own pages."""
    stripe_publishable_key: str = ""
    """The platform's publishable key at Stripe, for pages that authenticate with Stripe's SDK."""

    @field_validator("fee_plan")
    @classmethod
    def _is_the_platforms(cls, plan: FeePlan) -> FeePlan:
        """Refuse a name that captures could take for a merchant's own plan."""
        if not plan.version or is_version_of_merchant(plan.version):
            raise ValueError("its version must have a name, and none like v1: those are merchants' own")
        return plan
