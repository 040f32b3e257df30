"""Settings of the notifications server."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import SecretStr, model_validator

from servers.runtime.settings import ServerSettings


class NotificationsSettings(ServerSettings):
    """What the notifications server needs beyond the common settings."""

    smtp_host: str
    smtp_port: int
    smtp_tls: Literal["none", "starttls", "implicit"]
    smtp_username: str = ""
    smtp_password: SecretStr | None = None
    sender_name: str
    sender_address: str
    public_url: str
    """Where people reach the platform, for the links in mails."""

    @model_validator(mode="after")
    def _no_open_mail_in_production(self) -> Self:
        if self.profile == "production" and self.smtp_tls == "none":
            raise ValueError("PAYMESH_SMTP_TLS=none is for the dev and test profiles only: mails carry tokens")
        return self
