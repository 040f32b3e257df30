"""Settings of the sandbox, from `STRIPE_SANDBOX_*` variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

API_VERSION: Final = "2026-08-26.dahlia"


class NotForProduction(Exception):
    """The sandbox was started where real money moves."""


class Settings(BaseSettings):
    """What the sandbox needs."""

    model_config = SettingsConfigDict(env_prefix="STRIPE_SANDBOX_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 9100
    data_dir: Path
    api_key: SecretStr
    """One key, or several of the same account, apart by commas."""
    webhook_url: str = ""
    webhook_secret: SecretStr = SecretStr("")
    webhook_ca: Path | None = None
    reads_per_second: float = 0
    writes_per_second: float = 0
    """Rate limits; 0 is none."""


def load() -> Settings:
    """Read the settings. Raises NotForProduction in the production profile."""
    if os.environ.get("PAYMESH_PROFILE") == "production":
        raise NotForProduction(
            "the Stripe sandbox does not run in the production profile: set a Stripe API key instead"
        )
    return Settings()
