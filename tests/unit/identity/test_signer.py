"""Signing keys: two at once while one takes over from the other."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt import PyJWK

from servers.identity.tokens import LEARNT_SECONDS, NoSigningKey, Signer
from servers.kernel.clock import SystemClock

NOW = datetime.now(UTC)


class StandingClock(SystemClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        """Return its time."""
        return self.time


def add_key(folder: Path, name: str, *, age_seconds: float, key: Any = None) -> None:
    """Write a key that came some time ago."""
    made = key or ec.generate_private_key(ec.SECP256R1())
    file = folder / f"{name}.pem"
    file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    then = (NOW - timedelta(seconds=age_seconds)).timestamp()
    os.utime(file, (then, then))


def signer_of(folder: Path, clock: StandingClock) -> Signer:
    """Return a signer."""
    return Signer(folder, issuer="https://paymesh.example", audience="paymesh", clock=clock)


def verified(signer: Signer, token: str) -> str:
    """Verify a token as the edge does, and return which key did."""
    kid: str = jwt.get_unverified_header(token)["kid"]
    keys = {key["kid"]: key for key in json.loads(signer.jwks())["keys"]}
    issuer, unhurried = "https://paymesh.example", {"verify_iat": False, "verify_nbf": False, "verify_exp": False}
    jwt.decode(token, PyJWK(keys[kid]), algorithms=["ES256"], audience="paymesh", issuer=issuer, options=unhurried)
    return kid


def test_a_new_key_is_told_at_once_and_signs_when_everybody_knows_it(tmp_path: Path) -> None:
    clock = StandingClock()
    add_key(tmp_path, "2026-01", age_seconds=10_000)
    signer = signer_of(tmp_path, clock)
    old = signer.access_token(user_id="usr_1", session_id="ses_1")
    add_key(tmp_path, "2026-02", age_seconds=0)
    signer.reload()
    assert [key["kid"] for key in json.loads(signer.jwks())["keys"]] == ["2026-01", "2026-02"]
    assert verified(signer, signer.access_token(user_id="usr_1", session_id="ses_1")) == "2026-01"
    clock.time += timedelta(seconds=LEARNT_SECONDS + 1)
    signer.reload()
    assert verified(signer, signer.access_token(user_id="usr_1", session_id="ses_1")) == "2026-02"
    assert verified(signer, old) == "2026-01"


def test_the_last_by_name_is_the_last_whatever_characters_the_names_have(tmp_path: Path) -> None:
    for name in ("k1-next", "k1"):
        add_key(tmp_path, name, age_seconds=10_000)
    signer = signer_of(tmp_path, StandingClock())
    assert verified(signer, signer.access_token(user_id="usr_1", session_id="ses_1")) == "k1-next"


def test_a_key_set_tells_no_private_part(tmp_path: Path) -> None:
    add_key(tmp_path, "2026-01", age_seconds=0)
    (key,) = json.loads(signer_of(tmp_path, StandingClock()).jwks())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_folder_without_a_usable_key_is_refused_and_the_keys_in_use_stay(tmp_path: Path) -> None:
    with pytest.raises(NoSigningKey):
        signer_of(tmp_path, StandingClock())
    add_key(tmp_path, "2026-01", age_seconds=10_000)
    signer = signer_of(tmp_path, StandingClock())
    add_key(tmp_path, "2026-02", age_seconds=10_000, key=rsa.generate_private_key(65537, 2048))
    with pytest.raises(NoSigningKey):
        signer.reload()
    assert verified(signer, signer.access_token(user_id="usr_1", session_id="ses_1")) == "2026-01"
