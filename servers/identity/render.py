"""The domain's records as messages of the contract, and as events."""

from __future__ import annotations

from datetime import datetime

from paymesh.identity.v1 import identity_events_pb2, identity_pb2, staff_pb2

from servers.identity.domain import (
    ACCESS_SECONDS,
    ApiKey,
    AuditLogEntry,
    Invitation,
    Member,
    Merchant,
    NewApiKey,
    Session,
    StaffMember,
    Tokens,
    User,
)
from servers.runtime.outbox import OutboxEvent, event_of
from servers.runtime.render import etag, stamp


def user_message(user: User) -> identity_pb2.User:
    """Return a user as a message."""
    return identity_pb2.User(
        id=user.id,
        create_time=stamp(user.create_time),
        update_time=stamp(user.update_time),
        resource_version=user.version,
        etag=etag(user.version),
        email=user.email,
        display_name=user.display_name,
        email_verified=user.email_verified,
    )


def session_message(session: Session, *, current_id: str = "") -> identity_pb2.Session:
    """Return a session as a message; `current_id` is the one that asks."""
    return identity_pb2.Session(
        id=session.id,
        create_time=stamp(session.create_time),
        expire_time=stamp(session.expire_time),
        state=identity_pb2.Session.State.Value(session.state.value),
        last_used_time=stamp(session.last_used_time),
        user_agent=session.user_agent,
        address=session.address,
        current=session.id == current_id,
        user_id=session.user_id,
    )


def tokens_message(tokens: Tokens) -> identity_pb2.SessionTokens:
    """Return tokens as a message."""
    return identity_pb2.SessionTokens(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        token_type="Bearer",  # noqa: S106  # the scheme's name, not a secret
        expires_in_seconds=ACCESS_SECONDS,
        user=user_message(tokens.user),
        merchant_id=tokens.merchant_id,
    )


def merchant_message(merchant: Merchant) -> identity_pb2.Merchant:
    """Return a merchant as a message."""
    return identity_pb2.Merchant(
        id=merchant.id,
        create_time=stamp(merchant.create_time),
        update_time=stamp(merchant.update_time),
        resource_version=merchant.version,
        etag=etag(merchant.version),
        display_name=merchant.display_name,
        country=merchant.country,
        default_currency=merchant.default_currency,
        role=merchant.role,
    )


def member_message(member: Member) -> identity_pb2.Member:
    """Return a member as a message."""
    return identity_pb2.Member(
        merchant_id=member.merchant_id,
        user_id=member.user_id,
        email=member.email,
        display_name=member.display_name,
        role=member.role,
        create_time=stamp(member.create_time),
        resource_version=member.version,
        state=identity_pb2.Member.State.Value(member.state.value),
    )


def invitation_message(invitation: Invitation, *, now: datetime | None = None) -> identity_pb2.Invitation:
    """Return an invitation as a message, as it stands at `now` where given."""
    state = invitation.state if now is None else invitation.seen_at(now)
    return identity_pb2.Invitation(
        id=invitation.id,
        create_time=stamp(invitation.create_time),
        expire_time=stamp(invitation.expire_time),
        merchant_id=invitation.merchant_id,
        merchant_display_name=invitation.merchant_display_name,
        email=invitation.email,
        role=invitation.role,
        state=identity_pb2.Invitation.State.Value(state.value),
        resource_version=invitation.version,
    )


def audit_entry_message(entry: AuditLogEntry) -> identity_pb2.AuditLogEntry:
    """Return an entry of the audit log as a message."""
    return identity_pb2.AuditLogEntry(
        id=entry.id,
        create_time=stamp(entry.create_time),
        actor_id=entry.actor_id,
        actor_role=entry.actor_role,
        action=entry.action,
        resource_id=entry.resource_id,
        details=entry.details,
        request_id=entry.request_id,
    )


def api_key_message(key: ApiKey) -> identity_pb2.ApiKey:
    """Return an API key as a message: a publishable one as it is, a secret one without its secret."""
    message = identity_pb2.ApiKey(
        id=key.id,
        create_time=stamp(key.create_time),
        update_time=stamp(key.update_time),
        display_name=key.display_name,
        scopes=key.scopes,
        secret_prefix=key.secret_prefix,
        state=identity_pb2.ApiKey.State.Value(key.state.value),
        kind=identity_pb2.ApiKey.Kind.Value(key.kind.value),
        publishable_key=key.publishable_key,
    )
    if key.expire_time is not None:
        message.expire_time.CopyFrom(stamp(key.expire_time))
    if key.last_used_time is not None:
        message.last_used_time.CopyFrom(stamp(key.last_used_time))
    return message


def new_api_key_message(new: NewApiKey) -> identity_pb2.CreateApiKeyResponse:
    """Return a new API key with its secret, if it has one."""
    return identity_pb2.CreateApiKeyResponse(api_key=api_key_message(new.key), secret=new.secret)


def staff_message(member: StaffMember) -> staff_pb2.StaffMember:
    """Return a staff member as a message."""
    return staff_pb2.StaffMember(
        user_id=member.user_id,
        email=member.email,
        role=member.role,
        state=staff_pb2.StaffMember.State.Value(member.state.value),
        resource_version=member.version,
        create_time=stamp(member.create_time),
        update_time=stamp(member.update_time),
    )


Subject = User | Session | Merchant | ApiKey | Member | Invitation | StaffMember


def event(kind: str, subject: Subject) -> OutboxEvent:
    """Return the event of a change. Addresses and names of people are left out: a topic is no place for them."""
    message = identity_events_pb2.IdentityEvent()
    match subject:
        case User():
            message.user.CopyFrom(user_message(subject))
            message.user.ClearField("email")
            message.user.ClearField("display_name")
        case Session():
            message.session.CopyFrom(session_message(subject))
            message.session.ClearField("address")
        case Merchant():
            message.merchant.CopyFrom(merchant_message(subject))
            message.merchant.ClearField("role")
        case ApiKey():
            message.api_key.CopyFrom(api_key_message(subject))
        case Member():
            message.member.CopyFrom(member_message(subject))
            message.member.ClearField("email")
            message.member.ClearField("display_name")
        case Invitation():
            message.invitation.CopyFrom(invitation_message(subject))
            message.invitation.ClearField("email")
        case StaffMember():
            message.staff_member.CopyFrom(staff_message(subject))
            message.staff_member.ClearField("email")
    # A member has no id of its own; its root is the merchant, whose row orders the changes.
    root = subject.merchant_id if isinstance(subject, Member) else subject.id
    told = f"{subject.merchant_id}/{subject.user_id}" if isinstance(subject, Member) else subject.id
    return event_of(kind, message, root_id=root, subject=told, version=subject.version)
