"""Members of a merchant and invitations. Changes of one merchant's members wait for each other at the merchant's row, so that the
last owner cannot be lost to two changes at once."""

from __future__ import annotations

from dataclasses import replace

from servers.identity import store
from servers.identity.domain import (
    INVITATION,
    INVITATION_KEEP,
    MEMBER,
    OWNER,
    EmailNotVerified,
    Invitation,
    InvitationStateInvalid,
    Member,
    MemberRoleInvalid,
    MemberState,
    Merchant,
    User,
)
from servers.identity.render import event
from servers.identity.store import email_key
from servers.identity.usecases.audit import note
from servers.identity.usecases.deps import Deps
from servers.kernel.errors import ReferenceTaken, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.call import Principal
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.interceptor import ScopeMissing


async def _active(uow: UnitOfWork, merchant_id: str, user_id: str) -> Member:
    """Return an active member, with the merchant's members in line behind us. Raises ResourceNotFound."""
    await store.lock_members(uow.conn, merchant_id)
    member = await store.member(uow.conn, merchant_id, user_id)
    if member is None or member.state is not MemberState.ACTIVE:
        raise ResourceNotFound(user_id)
    return member


async def _caller(uow: UnitOfWork, principal: Principal) -> Member:
    """Return the caller's membership as it is now: the access token may be older than the last change of roles."""
    return await _active(uow, principal.merchant_id, principal.subject)


async def invite_member(
    deps: Deps, request: IdempotentRequest, principal: Principal, *, email: str, role: str
) -> Invitation:
    """Invite an address. Raises MemberRoleInvalid, ReferenceTaken where an invitation is open."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            caller = await _caller(uow, principal)
            if role == OWNER and caller.role != OWNER:
                raise MemberRoleInvalid.only_owners()
            now = deps.clock.now()
            stale = await store.open_invitation(uow.conn, principal.merchant_id, email)
            if stale is not None and stale.expire_time <= now:
                _answer(deps, uow, stale, "expire")
            merchant = await store.merchant(uow.conn, principal.merchant_id)
            invitation = Invitation(
                id=new_id("inv", clock=deps.clock, bucket=bucket_of(principal.merchant_id)),
                merchant_id=principal.merchant_id,
                merchant_display_name=merchant.display_name if merchant is not None else "",
                email=email,
                role=role,
                state=INVITATION.arrow(None, "create").target,
                invited_by=principal.subject,
                expire_time=now + INVITATION_KEEP,
                version=1,
                create_time=now,
                update_time=now,
            )
            if not await store.insert_invitation(uow.conn, invitation):
                raise ReferenceTaken("email")
            uow.outbox.append(event(INVITATION.arrow(None, "create").event, invitation))
            note(deps, uow, principal.merchant_id, "member.invited", invitation.id, role=role)
            uow.idempotency.complete(request, invitation)
    return invitation


def _answer(deps: Deps, uow: UnitOfWork, invitation: Invitation, trigger: str) -> Invitation:
    arrow = INVITATION.arrow(invitation.state, trigger, invitation.id)
    answered = replace(invitation, state=arrow.target, version=invitation.version + 1, update_time=deps.clock.now())
    store.update_invitation(uow.conn, answered, expected=invitation.version)
    uow.outbox.append(event(arrow.event, answered))
    return answered


async def revoke_invitation(
    deps: Deps, request: IdempotentRequest, principal: Principal, invitation_id: str
) -> Invitation:
    """Take an invitation back. Raises ResourceNotFound, InvitationStateInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            invitation = await store.invitation(uow.conn, invitation_id, lock=True)
            if invitation is None or invitation.merchant_id != principal.merchant_id:
                raise ResourceNotFound(invitation_id)
            invitation = _answer(deps, uow, invitation, "revoke")
            note(deps, uow, principal.merchant_id, "invitation.revoked", invitation_id)
            uow.idempotency.complete(request, invitation)
    return invitation


async def _invited(deps: Deps, uow: UnitOfWork, invitation_id: str, user: User) -> Invitation:
    """Return an invitation to the user's own address, locked. Raises ResourceNotFound for anybody else's."""
    invitation = await store.invitation(uow.conn, invitation_id, lock=True)
    if invitation is None or email_key(invitation.email) != email_key(user.email):
        raise ResourceNotFound(invitation_id)
    if not user.email_verified:
        raise EmailNotVerified
    seen = invitation.seen_at(deps.clock.now())
    if seen is not invitation.state:
        raise InvitationStateInvalid("The invitation is too old; ask for a new one.", invitation.id, seen.name)
    return invitation


async def accept_invitation(
    deps: Deps, request: IdempotentRequest, principal: Principal, invitation_id: str
) -> Merchant:
    """Become a member. Raises ResourceNotFound, EmailNotVerified, InvitationStateInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            user = await store.user(uow.conn, principal.subject)
            invitation = await _invited(deps, uow, invitation_id, user)
            await store.lock_members(uow.conn, invitation.merchant_id)
            _answer(deps, uow, invitation, "accept")
            await _join(deps, uow, invitation, user)
            merchant = await store.merchant_of_member(uow.conn, invitation.merchant_id, user.id)
            if merchant is None:
                raise ResourceNotFound(invitation.merchant_id)
            note(deps, uow, merchant.id, "member.joined", user.id, role=merchant.role)
            uow.idempotency.complete(request, merchant)
    return merchant


async def _join(deps: Deps, uow: UnitOfWork, invitation: Invitation, user: User) -> None:
    known = await store.member(uow.conn, invitation.merchant_id, user.id)
    if known is not None and known.state is MemberState.ACTIVE:
        return  # the role that they have was given later than the invitation, or is the same
    arrow = MEMBER.arrow(known.state if known is not None else None, "join", user.id)
    member = Member(
        merchant_id=invitation.merchant_id,
        user_id=user.id,
        email=user.email,
        display_name=user.display_name,
        role=invitation.role,
        state=arrow.target,
        version=known.version + 1 if known is not None else 1,
        create_time=deps.clock.now(),
    )
    store.save_member(uow.conn, member)
    uow.outbox.append(event(arrow.event, member))


async def decline_invitation(
    deps: Deps, request: IdempotentRequest, principal: Principal, invitation_id: str
) -> Invitation:
    """Decline an invitation. Raises ResourceNotFound, EmailNotVerified, InvitationStateInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            user = await store.user(uow.conn, principal.subject)
            invitation = _answer(deps, uow, await _invited(deps, uow, invitation_id, user), "decline")
            uow.idempotency.complete(request, invitation)
    return invitation


async def update_member(
    deps: Deps, request: IdempotentRequest, principal: Principal, *, user_id: str, role: str
) -> Member:
    """Change a member's role. Raises ResourceNotFound, MemberRoleInvalid."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            caller = await _caller(uow, principal)
            member = await _active(uow, principal.merchant_id, user_id)
            if role != member.role:
                await _guard_owners(uow, caller, member, becomes=role)
                member = _change(deps, uow, member, "change_role", role=role)
            uow.idempotency.complete(request, member)
    return member


async def remove_member(deps: Deps, request: IdempotentRequest, principal: Principal, user_id: str) -> Member:
    """Remove a member, or leave. Raises ResourceNotFound, MemberRoleInvalid, ScopeMissing."""
    if user_id != principal.subject and "members:write" not in principal.scopes:
        raise ScopeMissing("members:write")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            caller = await _caller(uow, principal)
            member = await _active(uow, principal.merchant_id, user_id)
            await _guard_owners(uow, caller, member, becomes="")
            member = _change(deps, uow, member, "remove", role=member.role)
            uow.idempotency.complete(request, member)
    return member


async def _guard_owners(uow: UnitOfWork, caller: Member, member: Member, *, becomes: str) -> None:
    if OWNER not in (member.role, becomes):
        return
    if caller.role != OWNER:
        raise MemberRoleInvalid.only_owners()
    if member.role == OWNER and len(await store.owners(uow.conn, member.merchant_id)) == 1:
        raise MemberRoleInvalid.last_owner()


def _change(deps: Deps, uow: UnitOfWork, member: Member, trigger: str, *, role: str) -> Member:
    arrow = MEMBER.arrow(member.state, trigger, member.user_id)
    changed = replace(member, role=role, state=arrow.target, version=member.version + 1)
    store.save_member(uow.conn, changed)
    uow.outbox.append(event(arrow.event, changed))
    note(deps, uow, member.merchant_id, arrow.event, member.user_id, role=role)
    return changed


async def expire_invitations(deps: Deps) -> None:
    """End invitations past their time; a job's work."""
    async with deps.db.uow() as uow:
        for invitation in await store.overdue_invitations(uow.conn, deps.clock.now()):
            _answer(deps, uow, invitation, "expire")
