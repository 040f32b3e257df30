"""Access tokens as identity signs them, and as forgers would: with the running platform's own key at hand."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from dev import pki
from tests.support.stack import Shop


def part(value: Any) -> str:
    """Return one part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def add_signing_key(folder: Path) -> Path:
    """Put one more signing key beside the ones in use, the last by name, and return its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = folder / f"{max(found.stem for found in folder.glob('*.pem'))}-next.pem"
    pki.write_private(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


class Forge:
    """Makes tokens of a shop's owner, signed by a key of the platform: the first one, or the one in a file."""

    def __init__(self, shop: Shop, *, file: Path | None = None) -> None:
        file = file or min(Path(shop.platform.folder, "private", "jwt").glob("*.pem"), key=lambda found: found.stem)
        key = load_pem_private_key(file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.kid, self.key = file.stem, key
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": shop.platform.edge,
            "aud": "paymesh",
            "sub": shop.user_id,
            "sid": "ses_" + "0" * 26,
            "iat": now,
            "nbf": now - 5,
            "exp": now + 900,
            "typ": "member",
            "merchant_id": shop.merchant_id,
            "role": "owner",
            "scope": "payments:read payments:write balances:read merchants:read",
        }

    def signed(self, *, key: Any = None, algorithm: str = "ES256", header: Any = None, **changes: Any) -> str:
        """Return a token with some claims changed (None leaves one out), signed by the platform's key or another one."""
        claims = {name: value for name, value in (self.claims | changes).items() if value is not None}
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"kid": self.kid} | (header or {}))

    def forgeries(self) -> dict[str, str]:
        """Return tokens of which none may be taken, by what is wrong about them."""
        now = int(time.time())
        mine, mine_rsa = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
        my_jwk = json.loads(ECAlgorithm.to_jwk(mine.public_key()))
        good_header, good_claims, signature = self.signed().split(".")
        richer = part(self.claims | {"scope": "payouts:approve"})
        return {
            "expired": self.signed(exp=now - 60),
            "without an end": self.signed(exp=None),
            "not valid yet": self.signed(nbf=now + 600),
            "for another audience": self.signed(aud="elsewhere"),
            "for no audience": self.signed(aud=None),
            "by another issuer": self.signed(iss="https://elsewhere.example"),
            "by nobody": self.signed(iss=None),
            "of nobody": self.signed(sub=""),
            "of a server": self.signed(typ="service", sub="wallets"),
            "of the public": self.signed(typ="public"),
            "of an unknown kind": self.signed(typ="root"),
            "of a member of no merchant": self.signed(merchant_id=None),
            "with our kid and a foreign key": self.signed(key=mine),
            "with a foreign kid": self.signed(key=mine, header={"kid": "mine"}),
            "with a path for a kid": self.signed(key=mine, header={"kid": "../../../../dev/null"}),
            "with SQL for a kid": self.signed(key=mine, header={"kid": "' UNION SELECT 'x' --"}),
            "with its own key inside": self.signed(key=mine, header={"kid": "mine", "jwk": my_jwk}),
            "with an address of its key": self.signed(
                key=mine, header={"kid": "mine", "jku": "https://evil.example/jwks"}
            ),
            "RSA under the kid of an EC key": self.signed(key=mine_rsa, algorithm="RS256"),
            **{f"HMAC with {name}": self._hmac(secret) for name, secret in self._public_texts().items()},
            "with the signature of other claims": f"{good_header}.{richer}.{signature}",
            "without a signature": f"{good_header}.{good_claims}.",
            **{
                f"alg {name}": f"{part({'alg': name, 'kid': self.kid})}.{good_claims}."
                for name in ("none", "None", "nOnE", "")
            },
            "alg none with a signature": f"{part({'alg': 'none', 'kid': self.kid})}.{good_claims}.{signature}",
            "cut": good_header + "." + good_claims,
            "of five parts": ".".join((good_header, good_claims, signature, signature, signature)),
        }

    def _public_texts(self) -> dict[str, bytes]:
        """Return what anybody can get of our public key, in the spellings that a confused library would take as a secret."""
        public = self.key.public_key()
        return {
            "the PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "the DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "the JWK": ECAlgorithm.to_jwk(public).encode(),
            "nothing": b"",
        }

    def _hmac(self, secret: bytes) -> str:
        import hashlib
        import hmac

        signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': self.kid})}.{part(self.claims)}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
