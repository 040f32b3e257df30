"""Staff: who has a role, given by whoever runs the machine, and how they get their access."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from servers.identity import store, totp
from servers.identity.domain import (
    STAFF,
    EmailNotVerified,
    SessionState,
    SessionStateInvalid,
    StaffCodeInvalid,
    StaffMember,
    StaffState,
    Tokens,
    User,
)
from servers.identity.render import event
from servers.identity.usecases.deps import Deps
from servers.kernel.errors import ResourceNotFound
from servers.kernel.ids import bucket_of, derive_id
from servers.runtime.call import Principal
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.throttle import Limit

# A code has a million values and three of them work at any time: five tries at once, then one in two minutes.
STAFF_CODES_OF_USER: Final = Limit(name="staff_codes_of_user", burst=5, every_seconds=120)


async def set_staff_role(deps: Deps, *, email: str, role: str, new_secret: bool) -> tuple[StaffMember, str]:
    """Give a user a staff role. Returns the member and, where a secret was made, what an authenticator app reads it from. Raises
    ResourceNotFound, EmailNotVerified."""
    async with deps.db.uow() as uow:
        user = await _user(uow, email)
        if not user.email_verified:
            raise EmailNotVerified
        now = deps.clock.now()
        # The user's row is locked: two changes at once wait for each other, also where there is no row of the staff yet.
        member = await store.staff_member(uow.conn, user.id, lock=True)
        arrow = STAFF.arrow(member.state if member is not None else None, "set_role", user.id)
        secret = b""
        # Somebody who comes back gets a new secret: the old one may be anywhere by now.
        if member is None or new_secret or member.state is StaffState.REMOVED:
            secret = totp.new_secret()
        base = member or StaffMember(
            id=derive_id("stf", user.id, bucket=bucket_of(user.id)),
            user_id=user.id,
            email=user.email,
            role=role,
            state=arrow.target,
            sealed_secret=b"",
            last_step=0,
            version=0,
            create_time=now,
            update_time=now,
        )
        member = replace(base, role=role, state=arrow.target, version=base.version + 1, update_time=now)
        if secret:
            sealed = deps.db.sealer.seal(secret, place=member.secret_place)
            member = replace(member, sealed_secret=sealed, last_step=0)
        store.save_staff_member(uow.conn, member)
        uow.outbox.append(event(arrow.event, member))
    return member, totp.uri(secret, account=user.email) if secret else ""


async def remove_staff_role(deps: Deps, *, email: str) -> StaffMember:
    """Take a user's staff role away. Raises ResourceNotFound for whoever has none."""
    async with deps.db.uow() as uow:
        user = await _user(uow, email)
        member = await store.staff_member(uow.conn, user.id, lock=True)
        if member is None or member.state is not StaffState.ACTIVE:
            raise ResourceNotFound("staff member")
        arrow = STAFF.arrow(member.state, "remove", user.id)
        member = replace(member, state=arrow.target, version=member.version + 1, update_time=deps.clock.now())
        store.save_staff_member(uow.conn, member)
        uow.outbox.append(event(arrow.event, member))
    return member


async def _user(uow: UnitOfWork, email: str) -> User:
    found = await store.user_by_email(uow.conn, email)
    if found is None:
        raise ResourceNotFound("user")
    return await store.user(uow.conn, found.id, lock=True)


async def switch_staff(deps: Deps, request: IdempotentRequest, principal: Principal, code: str) -> Tokens:
    """Return an access token for the work of staff. Raises StaffCodeInvalid for a wrong code and for whoever is no staff,
    SessionStateInvalid, RateLimited."""
    await deps.throttle.take(STAFF_CODES_OF_USER, principal.subject)
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        member = await store.staff_member(uow.conn, principal.subject, lock=True)
        if member is None or member.state is not StaffState.ACTIVE or not await _code_works(deps, uow, member, code):
            raise StaffCodeInvalid
        session = await store.session(uow.conn, principal.subject, principal.session_id)
        if session is None or session.state is not SessionState.ACTIVE:
            raise SessionStateInvalid("The session has ended; log in again.", principal.session_id, "REVOKED")
        access_token = deps.signer.access_token(
            user_id=principal.subject, session_id=session.id, role=member.role, staff=True
        )
        tokens = Tokens(access_token=access_token, refresh_token="", user=await store.user(uow.conn, principal.subject))
        uow.idempotency.complete(request, tokens)
    return tokens


async def _code_works(deps: Deps, uow: UnitOfWork, member: StaffMember, code: str) -> bool:
    secret = deps.db.sealer.open(member.sealed_secret, place=member.secret_place)
    step = totp.step_of(secret, code, now=deps.clock.now(), after=member.last_step)
    return step is not None and await store.use_staff_code(uow.conn, member.user_id, step)
