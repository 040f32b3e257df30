"""Settings of the sandbox, from `STRIPE_SANDBOX_*` variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

API_VERSION: Final = "2026-08-26.dahlia"


class NotForProduction(Exception):
    """The sandbox was started where real money moves."""


class Settings(BaseSettings):
    """What the sandbox needs."""

    model_config = SettingsConfigDict(env_prefix="STRIPE_SANDBOX_", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Where it listens."""
    port: int = 9100
    """Where it listens."""
    data_dir: Path
    """The folder of its file; made if it is not there."""
    api_key: SecretStr
    """The key that clients send, or several of one account, apart by commas."""
    webhook_url: str = ""
    """Where events go; nowhere, if empty."""
    webhook_secret: SecretStr = SecretStr("")
    """What they are signed with."""
    webhook_ca: Path | None = None
    """The certificate of who signed that address's certificate, if it is nobody public."""
    reads_per_second: float = Field(default=0, ge=0)
    """A rate limit; 0 is none."""
    writes_per_second: float = Field(default=0, ge=0)
    """A rate limit; 0 is none."""


def load() -> Settings:
    """Read the settings. Raises NotForProduction in the production profile."""
    if os.environ.get("PAYMESH_PROFILE") == "production":
        raise NotForProduction(
            "the Stripe sandbox does not run in the production profile: set a Stripe API key instead"
        )
    return Settings()
