"""The domain's records as messages of the contract, and as events."""

from __future__ import annotations

from datetime import datetime

from paymesh.identity.v1 import identity_events_pb2, identity_pb2

from servers.identity.domain import ACCESS_SECONDS, ApiKey, Merchant, NewApiKey, Session, Tokens, User
from servers.runtime.outbox import OutboxEvent
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
    )


def session_message(session: Session) -> identity_pb2.Session:
    """Return a session as a message."""
    return identity_pb2.Session(
        id=session.id,
        create_time=stamp(session.create_time),
        expire_time=stamp(session.expire_time),
        state=identity_pb2.Session.State.Value(session.state.value),
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


def api_key_message(key: ApiKey) -> identity_pb2.ApiKey:
    """Return an API key as a message, without its secret."""
    message = identity_pb2.ApiKey(
        id=key.id,
        create_time=stamp(key.create_time),
        update_time=stamp(key.update_time),
        display_name=key.display_name,
        scopes=key.scopes,
        secret_prefix=key.secret_prefix,
        state=identity_pb2.ApiKey.State.Value(key.state.value),
    )
    if key.expire_time is not None:
        message.expire_time.CopyFrom(stamp(key.expire_time))
    if key.last_used_time is not None:
        message.last_used_time.CopyFrom(stamp(key.last_used_time))
    return message


def new_api_key_message(new: NewApiKey) -> identity_pb2.CreateApiKeyResponse:
    """Return a new API key with its secret."""
    return identity_pb2.CreateApiKeyResponse(api_key=api_key_message(new.key), secret=new.secret)


def event(kind: str, subject: User | Session | Merchant | ApiKey) -> OutboxEvent:
    """Return the event of a change. The address of a user is left out: a topic is no place for it."""
    message = identity_events_pb2.IdentityEvent(type=kind, subject=subject.id, version=subject.version)
    match subject:
        case User():
            message.user.CopyFrom(user_message(subject))
            message.user.ClearField("email")
        case Session():
            message.session.CopyFrom(session_message(subject))
        case Merchant():
            message.merchant.CopyFrom(merchant_message(subject))
            message.merchant.ClearField("role")
        case ApiKey():
            message.api_key.CopyFrom(api_key_message(subject))

    def render(event_id: str, occur_time: datetime) -> bytes:
        message.event_id = event_id
        message.occur_time.CopyFrom(stamp(occur_time))
        return message.SerializeToString(deterministic=True)

    return OutboxEvent(type=kind, root_id=subject.id, subject=subject.id, version=subject.version, render=render)
