"""Settings of the identity server."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from servers.runtime.settings import ServerSettings


class IdentitySettings(ServerSettings):
    """What the identity server needs beyond the common settings."""

    password_pepper: SecretStr
    """Base64; mixed into every password before bcrypt."""
    api_key_pepper: SecretStr
    """Base64; the key of the hash under which API keys and refresh tokens are stored."""
    jwt_issuer: str
    jwt_audience: str = "paymesh"
    jwt_keys_dir: Path
    """ES256 private keys, `<kid>.pem`: the last by name signs, all verify."""
    bcrypt_cost: int = 12
    livemode: bool = False
