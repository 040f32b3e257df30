"""The identity domain's use cases on a real database, without a server around them."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path
from typing import Any

from dev import pki
from servers.identity import usecases
from servers.identity.domain import User
from servers.identity.passwords import Passwords
from servers.identity.tokens import Secrets, Signer
from servers.identity.usecases import Deps
from servers.runtime.db import Database
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.throttle import Throttle

PASSWORD = "four words of nothing"
_PEPPER = base64.b64encode(bytes(32)).decode()


def identity_deps(db: Database, folder: Path, redis_url: str, *, bcrypt_cost: int) -> Deps:
    """Return what the use cases work with."""
    pki.signing_key(folder / "jwt")
    return Deps(
        db=db,
        clock=db.clock,
        passwords=Passwords(_PEPPER, cost=bcrypt_cost),
        signer=Signer(folder / "jwt", issuer="https://paymesh.example", audience="paymesh", clock=db.clock),
        secrets=Secrets(_PEPPER),
        throttle=Throttle(redis_url, db.clock),
        livemode=False,
    )


def ticket() -> IdempotentRequest:
    """Return a request without a key."""
    return IdempotentRequest(tenant="t", method="m", key=None, fingerprint=b"f", render=lambda value: b"")


async def registered(deps: Deps) -> User:
    """Register somebody."""
    email = f"{uuid.uuid4().hex}@example.com"
    return await usecases.register_user(deps, ticket(), email=email, password=PASSWORD, display_name="Ada")


async def log_in(deps: Deps, email: str, password: str = PASSWORD) -> Any:
    """Log in."""
    return await usecases.log_in(deps, ticket(), email=email, password=password, user_agent="", address="")
