"""Access tokens (JWT, ES256), the key set that verifies them, and the hashes of opaque secrets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any, Final

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm

from servers.identity.domain import (
    ACCESS_SECONDS,
    CUSTOMER_SCOPES,
    ROLE_SCOPES,
    STAFF_ROLE_SCOPES,
    ApiKey,
    ApiKeyKind,
)
from servers.kernel.clock import Clock
from servers.kernel.ids import new_id
from servers.runtime.call import PrincipalKind

SECRET_BYTES: Final = 32
RELOAD_SECONDS: Final = 10.0
LEARNT_SECONDS: Final = 90.0
"""The edge asks for the keys every minute."""

_log = structlog.get_logger("tokens")


class NoSigningKey(Exception):
    """The folder of signing keys holds none."""


class Signer:
    """Signs access tokens with the newest key that everybody has had the time to learn of."""

    def __init__(self, folder: Path, *, issuer: str, audience: str, clock: Clock) -> None:
        self._folder = folder
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._keys: dict[str, EllipticCurvePrivateKey] = {}
        self._kid = ""
        self.reload()

    def reload(self) -> None:
        """Read the folder of keys: all verify, and the last by name signs once it is older than what the edge keeps in its cache:
        a token never comes before its key. Raises NoSigningKey."""
        files = sorted(self._folder.glob("*.pem"), key=lambda file: file.stem)
        if not files:
            raise NoSigningKey(str(self._folder))
        keys = {}
        for file in files:
            key = load_pem_private_key(file.read_bytes(), password=None)
            if not isinstance(key, EllipticCurvePrivateKey):
                raise NoSigningKey(f"{file.name} is not an EC key")
            keys[file.stem] = key
        now = self._clock.now().timestamp()
        known = [file.stem for file in files if now - file.stat().st_mtime > LEARNT_SECONDS]
        self._keys, self._kid = keys, (known or [files[0].stem])[-1]

    async def keep_fresh(self) -> None:
        """Read the folder again and again, until cancelled; a folder in the middle of a change is read the next time."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                self.reload()
            except (OSError, ValueError, NoSigningKey) as error:
                _log.error("signing_keys.unreadable", error=type(error).__name__)

    def jwks(self) -> bytes:
        """Return the public keys as a JWK set (RFC 7517)."""
        keys = [
            {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256", "use": "sig"}
            for kid, key in self._keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def access_token(
        self, *, user_id: str, session_id: str, merchant_id: str = "", role: str = "", staff: bool = False
    ) -> str:
        """Return an access token for a user, for a member of a merchant, or for staff. Real time: tokens do not follow a test
        clock."""
        issued = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "sid": session_id,
            "iat": issued,
            "nbf": issued - 5,
            "exp": issued + ACCESS_SECONDS,
            "jti": new_id("jti", clock=self._clock),
        }
        if staff:
            claims |= {"typ": "staff", "role": role, "scope": " ".join(sorted(STAFF_ROLE_SCOPES[role]))}
        elif merchant_id:
            claims |= {
                "typ": "member",
                "merchant_id": merchant_id,
                "role": role,
                "scope": " ".join(sorted(ROLE_SCOPES[role])),
            }
        else:
            claims |= {"typ": "customer", "scope": " ".join(sorted(CUSTOMER_SCOPES))}
        return jwt.encode(claims, self._keys[self._kid], algorithm="ES256", headers={"kid": self._kid})


class Secrets:
    """Makes opaque secrets and the keyed hashes that are stored instead of them."""

    def __init__(self, pepper_base64: str) -> None:
        self._pepper = base64.b64decode(pepper_base64)

    def new(self, prefix: str) -> str:
        """Return a fresh secret of 256 random bits."""
        return f"{prefix}{secrets.token_urlsafe(SECRET_BYTES)}"

    def hash(self, secret: str) -> bytes:
        """Return the hash under which a secret is stored and found."""
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).digest()


def principal_header(key: ApiKey) -> str:
    """Return the claims of an API key, as the edge forwards them."""
    kind = PrincipalKind.PAYMENT_CLIENT if key.kind is ApiKeyKind.PUBLISHABLE else PrincipalKind.API_KEY
    claims = {"sub": key.id, "typ": kind.value, "merchant_id": key.merchant_id, "scope": " ".join(key.scopes)}
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
