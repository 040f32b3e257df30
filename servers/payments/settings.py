"""Settings of the payments server."""

from __future__ import annotations

from pydantic import SecretStr

from servers.payments.domain import FeePlan
from servers.runtime.settings import ServerSettings


class PaymentsSettings(ServerSettings):
    """What the payments server needs beyond the common settings."""

    stripe_api_key: SecretStr
    stripe_api_base: str = ""
    """The address of the sandbox; empty for Stripe itself."""
    stripe_webhook_secrets: SecretStr
    """Comma-separated: two while one is being replaced."""
    fee_plan: FeePlan
    """JSON: {"version": "2026-11", "basis_points": 150, "fixed_minor": {"USD": 25}}."""
