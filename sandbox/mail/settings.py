"""Settings, from `MAIL_SANDBOX_*` variables."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the mail sandbox needs."""

    model_config = SettingsConfigDict(env_prefix="MAIL_SANDBOX_", frozen=True)

    smtp_port: int = 1026
    inbox_port: int = 8026
    data_dir: Path
    host: str = "127.0.0.1"
