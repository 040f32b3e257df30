"""Settings of the payments server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from servers.payments.domain import FeePayer, FeePlan, is_version_of_merchant
from servers.runtime.settings import ServerSettings

WEBHOOK_SECRETS_MAX: Final = 2


class PaymentsSettings(ServerSettings):
    """What the payments server needs beyond the common settings."""

    stripe_api_key: SecretStr
    stripe_api_base: str = ""
    """The address of the sandbox; empty for Stripe itself."""
    stripe_webhook_secrets: SecretStr
    """The signing secrets of Stripe's endpoint, comma-separated: two while one is being replaced, either may sign."""
    fee_plan: FeePlan
    """The plan of merchants without one of their own, as JSON: {"version": "2026-11", "basis_points": 150, "fixed_minor": {"USD":
    25}}, and optionally "fee_refund" and "settlement_delay_seconds". Its version changes with its terms."""
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
    reconcile_every_seconds: float = 60.0
    """How often Stripe's balance transactions are pulled and compared."""
    reconcile_lag_seconds: int = 600
    """How long a balance transaction must have been seen before it is compared: an answer may still be on its way to us."""
    reconcile_missing_after_seconds: int = 259_200
    """How long after a capture or refund its balance transaction counts as missing."""

    @field_validator("fee_plan")
    @classmethod
    def _is_the_platforms(cls, plan: FeePlan) -> FeePlan:
        """Refuse a name that captures could take for a merchant's own plan."""
        if not plan.version or is_version_of_merchant(plan.version):
            raise ValueError("its version must have a name, and none like v1: those are merchants' own")
        return plan

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _one_or_two(cls, value: SecretStr) -> SecretStr:
        secrets = _split(value)
        # An empty one would be a secret that everybody knows.
        if not 1 <= len(secrets) <= WEBHOOK_SECRETS_MAX or not all(
            s.startswith("whsec_") and len(s) > 6 for s in secrets
        ):
            raise ValueError("one or two secrets, each beginning with whsec_, separated by a comma")
        return value

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The live secrets."""
        return _split(self.stripe_webhook_secrets)


def _split(value: SecretStr) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.get_secret_value().split(","))
