"""One function per command of the identity domain. Passwords are hashed before any transaction opens."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from servers.identity import store
from servers.identity.domain import (
    API_KEY,
    API_KEY_SCOPES,
    SESSION,
    SESSION_KEEP,
    ApiKey,
    LoginFailed,
    Merchant,
    NewApiKey,
    ReferenceTaken,
    RefreshTokenInvalid,
    Session,
    SessionState,
    SessionStateInvalid,
    Tokens,
    User,
)
from servers.identity.passwords import Passwords
from servers.identity.render import event
from servers.identity.tokens import Secrets, Signer
from servers.kernel.clock import Clock
from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.kernel.money import is_currency
from servers.runtime.call import Principal
from servers.runtime.db import Database, UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.throttle import Limit, Throttle

# Guessing one account's password from many addresses: ten tries at once, then one in a minute and a half.
LOGINS_OF_ACCOUNT: Final = Limit(name="logins_of_account", burst=10, every_seconds=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    passwords: Passwords
    signer: Signer
    secrets: Secrets
    throttle: Throttle
    key_prefix: str


async def register_user(
    deps: Deps, request: IdempotentRequest, *, email: str, password: str, display_name: str
) -> User:
    """Register a user. Raises ReferenceTaken."""
    hashed = await deps.passwords.hash(password)
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            now = deps.clock.now()
            user = User(
                id=new_id("usr", clock=deps.clock),
                email=unicodedata.normalize("NFC", email),
                display_name=display_name,
                password_hash=hashed,
                version=1,
                create_time=now,
                update_time=now,
            )
            if not await store.insert_user(uow.conn, user):
                raise ReferenceTaken("email")
            await uow.outbox.append(event("user.registered", user))
            await uow.idempotency.complete(request, user)
    return user


async def log_in(deps: Deps, request: IdempotentRequest, *, email: str, password: str) -> Tokens:
    """Log a user in. Raises LoginFailed, after the same time for an unknown address and a wrong password, and RateLimited, which
    an unknown address meets just as well."""
    await deps.throttle.take(LOGINS_OF_ACCOUNT, deps.secrets.hash(store.email_key(email)).hex()[:32])
    async with deps.db.read() as conn:
        user = await store.user_by_email(conn, email)
    if not await deps.passwords.matches(password, user.password_hash if user else None) or user is None:
        raise LoginFailed
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        now = deps.clock.now()
        session = Session(
            id=new_id("ses", clock=deps.clock, bucket=bucket_of(user.id)),
            user_id=user.id,
            state=SESSION.arrow(None, "create").target,
            version=1,
            create_time=now,
            expire_time=now + SESSION_KEEP,
        )
        await store.insert_session(uow.conn, session)
        await uow.outbox.append(event("session.created", session))
        tokens = await _issue(deps, uow, user, session)
        await uow.idempotency.complete(request, tokens)
    return tokens


async def _issue(deps: Deps, uow: UnitOfWork, user: User, session: Session) -> Tokens:
    refresh_token = deps.secrets.new("pm_rt_")
    await store.insert_refresh_token(uow.conn, deps.secrets.hash(refresh_token), session)
    access_token = deps.signer.access_token(user_id=user.id, session_id=session.id)
    return Tokens(access_token=access_token, refresh_token=refresh_token, user=user)


async def refresh(deps: Deps, request: IdempotentRequest, refresh_token: str) -> Tokens:
    """Exchange a refresh token. A second use revokes the session. Raises RefreshTokenInvalid."""
    reused = False
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        found = await store.use_refresh_token(uow.conn, deps.secrets.hash(refresh_token), deps.clock.now())
        tokens: Tokens | None = None
        if found is not None:
            session, first = found
            if first and session.state is SessionState.ACTIVE:
                tokens = await _issue(deps, uow, await store.user(uow.conn, session.user_id), session)
                await uow.idempotency.complete(request, tokens)
            elif session.state is SessionState.ACTIVE:
                # Somebody else has the token too: nobody can tell the thief from the owner, so the session ends for both.
                reused = True
                await _revoke(deps, uow, session)
        if tokens is None:
            await uow.idempotency.refuse(request, RefreshTokenInvalid())
    if tokens is None or reused:
        raise RefreshTokenInvalid
    return tokens


async def _revoke(deps: Deps, uow: UnitOfWork, session: Session) -> Session:
    arrow = SESSION.arrow(session.state, "revoke")
    await store.revoke_session(uow.conn, session, deps.clock.now())
    revoked = replace(session, state=arrow.target, version=session.version + 1)
    await uow.outbox.append(event(arrow.event, revoked))
    return revoked


async def revoke_session(deps: Deps, request: IdempotentRequest, principal: Principal) -> Session:
    """End the caller's session. Raises SessionStateInvalid where it has ended."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            session = await store.session(uow.conn, principal.subject, principal.session_id, lock=True)
            if session is None:
                raise ResourceNotFound(principal.session_id)
            session = await _revoke(deps, uow, session)
            await uow.idempotency.complete(request, session)
    return session


async def switch_merchant(deps: Deps, request: IdempotentRequest, principal: Principal, merchant_id: str) -> Tokens:
    """Return an access token that acts for a merchant. Raises ResourceNotFound, SessionStateInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            merchant = await store.merchant_of_member(uow.conn, merchant_id, principal.subject)
            if merchant is None:
                raise ResourceNotFound(merchant_id)
            session = await store.session(uow.conn, principal.subject, principal.session_id)
            if session is None or session.state is not SessionState.ACTIVE:
                raise SessionStateInvalid("The session has ended; log in again.")
            access_token = deps.signer.access_token(
                user_id=principal.subject, session_id=session.id, merchant_id=merchant.id, role=merchant.role
            )
            user = await store.user(uow.conn, principal.subject)
            tokens = Tokens(access_token=access_token, refresh_token="", user=user, merchant_id=merchant.id)
            await uow.idempotency.complete(request, tokens)
    return tokens


async def create_merchant(
    deps: Deps, request: IdempotentRequest, *, owner_id: str, display_name: str, country: str, default_currency: str
) -> Merchant:
    """Create a merchant with the caller as its owner. Raises FieldInvalid."""
    if not is_currency(default_currency):
        raise FieldInvalid.of("default_currency", "must be an ISO 4217 currency, for example USD")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        now = deps.clock.now()
        merchant = Merchant(
            id=new_id("mer", clock=deps.clock),
            display_name=display_name,
            country=country,
            default_currency=default_currency,
            role="owner",
            version=1,
            create_time=now,
            update_time=now,
        )
        await store.insert_merchant(uow.conn, merchant, owner_id)
        await uow.outbox.append(event("merchant.created", merchant))
        await uow.idempotency.complete(request, merchant)
    return merchant


async def create_api_key(
    deps: Deps,
    request: IdempotentRequest,
    principal: Principal,
    *,
    display_name: str,
    scopes: Sequence[str],
    expire_time: datetime | None,
) -> NewApiKey:
    """Make an API key. Raises FieldInvalid for a scope that a key cannot carry or the caller does not have."""
    for index, scope in enumerate(scopes):
        if scope not in API_KEY_SCOPES or scope not in principal.scopes:
            raise FieldInvalid.of(
                f"scopes[{index}]", f"must be one that you have yourself, of {', '.join(sorted(API_KEY_SCOPES))}"
            )
    now = deps.clock.now()
    if expire_time is not None and expire_time <= now:
        raise FieldInvalid.of("expire_time", "must lie in the future")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        secret = deps.secrets.new(deps.key_prefix)
        key = ApiKey(
            id=new_id("key", clock=deps.clock, bucket=bucket_of(principal.merchant_id)),
            merchant_id=principal.merchant_id,
            display_name=display_name,
            scopes=tuple(scopes),
            secret_prefix=secret[: len(deps.key_prefix) + 4],
            expire_time=expire_time,
            last_used_time=None,
            state=API_KEY.arrow(None, "create").target,
            version=1,
            create_time=now,
            update_time=now,
        )
        await store.insert_api_key(uow.conn, key, deps.secrets.hash(secret))
        await uow.outbox.append(event("api_key.created", key))
        new = NewApiKey(key=key, secret=secret)
        await uow.idempotency.complete(request, new)
    return new


async def revoke_api_key(deps: Deps, request: IdempotentRequest, *, merchant_id: str, key_id: str) -> ApiKey:
    """Revoke an API key; again is fine. Raises ResourceNotFound."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            key = await store.api_key(uow.conn, merchant_id, key_id)
            if key is None:
                raise ResourceNotFound(key_id)
            if API_KEY.allows(key.state, "revoke"):
                now = deps.clock.now()
                await store.revoke_api_key(uow.conn, key, now)
                arrow = API_KEY.arrow(key.state, "revoke")
                key = replace(key, state=arrow.target, version=key.version + 1, update_time=now)
                await uow.outbox.append(event(arrow.event, key))
            await uow.idempotency.complete(request, key)
    return key
