"""Settings of the payments server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr

from servers.payments.domain import FeePayer, FeePlan
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
    dispute_fee_payer: FeePayer = FeePayer.MERCHANT
    """Who bears what Stripe takes for a dispute of a sale. A user never bears it for a top-up."""
    client_secret_key: SecretStr
    """32 bytes in base64: what client secrets are derived with."""
    public_url: str
    """Where the edge answers, for example "https://pay.example": Stripe sends cardholders back there."""
    return_url_origins: tuple[str, ...] = ()
    """Where cardholders may be sent on to for every merchant, and for users themselves: the platform's own pages."""
    review_above_minor: Mapping[str, int] = Field(default_factory=dict)
    """JSON: {"USD": 1000000}. Sums above it wait for a person; currencies that are not named do not."""
    review_timeout_seconds: int = 86_400
    """How long a payment in review waits until it is canceled."""
    risk_failure_mode: Literal["closed", "open"] = "closed"
    """Whether a person looks at a payment that the fraud rules gave no answer about in time, or it goes on."""
    refunds_wait_for_balance: bool = False
    """Whether refunds that a merchant's balance does not cover wait for it, whatever the merchant's own settings say."""
    stripe_publishable_key: str = ""
    """The platform's publishable key at Stripe, for pages that authenticate with Stripe's SDK."""
