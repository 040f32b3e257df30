"""Users: registering, proving the address, passwords."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from servers.identity import store
from servers.identity.domain import EmailTokenInvalid, LoginFailed, TokenPurpose, User
from servers.identity.render import event
from servers.identity.usecases.deps import Deps
from servers.identity.usecases.sessions import end_sessions
from servers.kernel.errors import ConcurrentUpdate, ReferenceTaken, ResourceNotFound, check_etag
from servers.kernel.ids import new_id
from servers.runtime.call import Principal
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.throttle import Limit

START_RESET: Final = "identity.start_password_reset"
MAILS_TO_USER: Final = Limit(name="verification_mails", burst=3, every_seconds=600)
RESETS_OF_ACCOUNT: Final = Limit(name="password_resets", burst=3, every_seconds=600)
PASSWORDS_OF_USER: Final = Limit(name="password_changes", burst=5, every_seconds=60)


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
                email_verified=False,
                password_hash=hashed,
                version=1,
                create_time=now,
                update_time=now,
            )
            if not await store.insert_user(uow.conn, user):
                raise ReferenceTaken("email")
            uow.outbox.append(event("user.registered", user))
            uow.idempotency.complete(request, user)
    return user


async def update_user(
    deps: Deps, request: IdempotentRequest, user_id: str, *, display_name: str, expected: int | None
) -> User:
    """Change a user's name. Raises EtagMismatch."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        user = await store.user(uow.conn, user_id, lock=True)
        check_etag(user.id, expected=expected, version=user.version)
        user = _save(deps, uow, "user.updated", user, display_name=display_name)
        uow.idempotency.complete(request, user)
    return user


def _save(deps: Deps, uow: UnitOfWork, kind: str, user: User, **changes: Any) -> User:
    saved = replace(user, version=user.version + 1, update_time=deps.clock.now(), **changes)
    store.update_user(uow.conn, saved, expected=user.version)
    uow.outbox.append(event(kind, saved))
    return saved


# Email addresses


async def create_email_token(deps: Deps, user_id: str, purpose: TokenPurpose) -> tuple[str, datetime]:
    """Make a token for a mail that is being written. Raises ResourceNotFound."""
    token = deps.secrets.new("pm_et_")
    expire_time = deps.clock.now() + purpose.keep
    async with deps.db.uow() as uow:
        if await store.user_exists(uow.conn, user_id) is False:
            raise ResourceNotFound(user_id)
        store.insert_email_token(uow.conn, deps.secrets.hash(token), user_id, purpose, expire_time)
    return token, expire_time


async def verify_email(deps: Deps, request: IdempotentRequest, token: str) -> User:
    """Verify the address that a token was sent to; again is fine. Raises EmailTokenInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            user = await _holder(deps, uow, token, TokenPurpose.VERIFY_EMAIL, unused=False)
            if not user.email_verified:
                user = _save(deps, uow, "user.email_verified", user, email_verified=True)
            uow.idempotency.complete(request, user)
    return user


async def _holder(deps: Deps, uow: UnitOfWork, token: str, purpose: TokenPurpose, *, unused: bool) -> User:
    hashed = deps.secrets.hash(token)
    user_id = await store.email_token(uow.conn, hashed, purpose, deps.clock.now(), unused=unused)
    if user_id is None:
        raise EmailTokenInvalid
    return await store.user(uow.conn, user_id, lock=True)


async def request_email_verification(deps: Deps, request: IdempotentRequest, user_id: str) -> User:
    """Have the verification mail sent again. Raises RateLimited."""
    await deps.throttle.take(MAILS_TO_USER, user_id)
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        user = await store.user(uow.conn, user_id, lock=True)
        if not user.email_verified:
            user = _save(deps, uow, "user.email_verification_requested", user)
        uow.idempotency.complete(request, user)
    return user


# Passwords


async def request_password_reset(deps: Deps, request: IdempotentRequest, email: str) -> None:
    """Have a mail with a token sent, if the address belongs to an account. Raises RateLimited, for any address alike."""
    await deps.throttle.take(RESETS_OF_ACCOUNT, deps.secrets.hash(store.email_key(email)).hex()[:32])
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        # A job does the rest, so that the answer takes as long for an address without an account.
        await uow.jobs.defer(START_RESET, email=email)
        uow.idempotency.complete(request, None)


async def start_password_reset(deps: Deps, *, email: str) -> None:
    """Tell, by an event, that a user wants a new password."""
    async with deps.db.uow() as uow:
        found = await store.user_by_email(uow.conn, email)
        if found is not None:
            user = await store.user(uow.conn, found.id, lock=True)
            _save(deps, uow, "user.password_reset_requested", user)


async def reset_password(deps: Deps, request: IdempotentRequest, *, token: str, new_password: str) -> User:
    """Set a new password by a token of a mail, which also proves the address, and end every session. Raises EmailTokenInvalid."""
    hashed = await deps.passwords.hash(new_password)
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            user = await _holder(deps, uow, token, TokenPurpose.RESET_PASSWORD, unused=True)
            store.use_email_tokens(uow.conn, user.id, TokenPurpose.RESET_PASSWORD)
            user = _save(deps, uow, "user.password_changed", user, password_hash=hashed, email_verified=True)
            await end_sessions(deps, uow, user.id)
            uow.idempotency.complete(request, user)
    return user


async def change_password(
    deps: Deps, request: IdempotentRequest, principal: Principal, *, current_password: str, new_password: str
) -> User:
    """Change the password and end every other session. Raises LoginFailed, RateLimited."""
    await deps.throttle.take(PASSWORDS_OF_USER, principal.subject)
    async with deps.db.read() as conn:
        known = await store.user(conn, principal.subject)
    if not await deps.passwords.matches(current_password, known.password_hash):
        async with deps.db.uow() as uow:
            # It may be this very call that changed it, asked for once more: then the claim raises what it answered.
            await uow.idempotency.claim(request)
            raise LoginFailed
    hashed = await deps.passwords.hash(new_password)
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        user = await store.user(uow.conn, principal.subject, lock=True)
        if user.password_hash != known.password_hash:
            raise ConcurrentUpdate(user.id)
        user = _save(deps, uow, "user.password_changed", user, password_hash=hashed)
        await end_sessions(deps, uow, user.id, but=principal.session_id)
        uow.idempotency.complete(request, user)
    return user


async def delete_old_email_tokens(deps: Deps) -> None:
    """Forget tokens past their end; a job's work."""
    async with deps.db.uow() as uow:
        await store.delete_old_email_tokens(uow.conn, deps.clock.now())
