"""Settings: one class per server, read once at the start and passed down.

Values come from `PAYMESH_*` variables, secrets from files of the same name in lower case in `PAYMESH_SECRETS_DIR` (as a
Kubernetes secret mounts them). A misspelt variable is an error: pydantic alone would ignore it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "PAYMESH_"


class UnknownSetting(Exception):
    """A `PAYMESH_*` variable that nothing reads."""


class Settings(BaseSettings):
    """The base of every settings class."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def load(cls) -> Self:
        """Read the settings. Raises UnknownSetting, or pydantic's ValidationError which names what is missing."""
        known = {PREFIX + name.upper() for name in cls.model_fields} | {f"{PREFIX}SECRETS_DIR"}
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise UnknownSetting(
                f"{', '.join(unknown)}: no such setting; {cls.__name__} reads {', '.join(sorted(known))}"
            )
        folder = os.environ.get(f"{PREFIX}SECRETS_DIR")
        return cls(_secrets_dir=folder) if folder else cls()


class ServerSettings(Settings):
    """What every server needs."""

    profile: Literal["dev", "test", "production"]
    grpc_host: str = "127.0.0.1"
    grpc_port: int
    metrics_port: int
    tls_dir: Path
    peers: dict[str, str] = {}
    database_url: SecretStr
    eventlog_url: SecretStr
    redis_url: SecretStr
    seal_key: SecretStr
    page_token_key: SecretStr
    otlp_endpoint: str | None = None
    crash_dir: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _no_crashes_in_production(self) -> Self:
        if self.profile == "production" and self.crash_dir is not None:
            raise ValueError("PAYMESH_CRASH_DIR is for the dev and test profiles only")
        return self


class MigrateSettings(Settings):
    """What `python -m servers migrate` needs."""

    admin_database_url: SecretStr
    database_prefix: str = ""
    role_password_identity: SecretStr
    role_password_payments: SecretStr
    role_password_wallets: SecretStr
    role_password_notifications: SecretStr
    role_password_audit: SecretStr
    log_level: Literal["debug", "info", "warning", "error"] = "info"
