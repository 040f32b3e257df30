"""Sessions: logging in, refreshing, acting for a merchant, logging out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from servers.identity import store
from servers.identity.domain import (
    SESSION,
    SESSION_KEEP,
    LoginFailed,
    RefreshTokenInvalid,
    Session,
    SessionState,
    SessionStateInvalid,
    Tokens,
    User,
)
from servers.identity.render import event
from servers.identity.usecases.deps import Deps
from servers.kernel.errors import ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.call import Principal
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.throttle import Limit

# Guessing one account's password from many addresses: ten tries at once, then one in a minute and a half.
LOGINS_OF_ACCOUNT: Final = Limit(name="logins_of_account", burst=10, every_seconds=90)


async def log_in(
    deps: Deps, request: IdempotentRequest, *, email: str, password: str, user_agent: str, address: str
) -> Tokens:
    """Log a user in. Raises LoginFailed, after the same time for an unknown address and a wrong password, and RateLimited, which
    an unknown address meets just as well."""
    await deps.throttle.take(LOGINS_OF_ACCOUNT, deps.secrets.hash(store.email_key(email)).hex()[:32])
    async with deps.db.read() as conn:
        user = await store.user_by_email(conn, email)
    if not await deps.passwords.matches(password, user.password_hash if user else None) or user is None:
        raise LoginFailed
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        # The password may have been changed since it was checked: then every session was ended, and this one must not begin.
        if (await store.user(uow.conn, user.id, lock=True)).password_hash != user.password_hash:
            raise LoginFailed
        now = deps.clock.now()
        session = Session(
            id=new_id("ses", clock=deps.clock, bucket=bucket_of(user.id)),
            user_id=user.id,
            state=SESSION.arrow(None, "create").target,
            version=1,
            create_time=now,
            expire_time=now + SESSION_KEEP,
            last_used_time=now,
            user_agent=user_agent,
            address=address,
        )
        store.insert_session(uow.conn, session)
        uow.outbox.append(event("session.created", session))
        tokens = _issue(deps, uow, user, session)
        uow.idempotency.complete(request, tokens)
    return tokens


def _issue(deps: Deps, uow: UnitOfWork, user: User, session: Session) -> Tokens:
    refresh_token = deps.secrets.new("pm_rt_")
    store.insert_refresh_token(uow.conn, deps.secrets.hash(refresh_token), session)
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
                store.touch_session(uow.conn, session, deps.clock.now())
                tokens = _issue(deps, uow, await store.user(uow.conn, session.user_id), session)
                uow.idempotency.complete(request, tokens)
            elif session.state is SessionState.ACTIVE:
                # Somebody else has the token too: nobody can tell the thief from the owner, so the session ends for both.
                reused = True
                _revoke(deps, uow, session)
        if tokens is None:
            uow.idempotency.refuse(request, RefreshTokenInvalid())
    if tokens is None or reused:
        raise RefreshTokenInvalid
    return tokens


def _revoke(deps: Deps, uow: UnitOfWork, session: Session) -> Session:
    arrow = SESSION.arrow(session.state, "revoke", session.id)
    store.revoke_session(uow.conn, session, deps.clock.now())
    revoked = replace(session, state=arrow.target, version=session.version + 1)
    uow.outbox.append(event(arrow.event, revoked))
    return revoked


async def end_sessions(deps: Deps, uow: UnitOfWork, user_id: str, *, but: str = "") -> None:
    """End every session of a user but one."""
    for session in await store.active_sessions(uow.conn, user_id):
        if session.id != but:
            _revoke(deps, uow, session)


async def revoke_session(deps: Deps, request: IdempotentRequest, principal: Principal, session_id: str) -> Session:
    """End one of the caller's sessions. Raises ResourceNotFound, SessionStateInvalid where it has ended."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            session = await store.session(uow.conn, principal.subject, session_id, lock=True)
            if session is None:
                raise ResourceNotFound(session_id)
            session = _revoke(deps, uow, session)
            uow.idempotency.complete(request, session)
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
                raise SessionStateInvalid(
                    "The session has ended; log in again.", principal.session_id, SessionState.REVOKED.name
                )
            access_token = deps.signer.access_token(
                user_id=principal.subject, session_id=session.id, merchant_id=merchant.id, role=merchant.role
            )
            user = await store.user(uow.conn, principal.subject)
            tokens = Tokens(access_token=access_token, refresh_token="", user=user, merchant_id=merchant.id)
            uow.idempotency.complete(request, tokens)
    return tokens
