"""API keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from servers.identity import store
from servers.identity.domain import (
    API_KEY,
    API_KEY_SCOPES,
    PUBLISHABLE_KEY_SCOPES,
    ApiKey,
    ApiKeyKind,
    ApiKeyState,
    ApiKeyStateInvalid,
    NewApiKey,
)
from servers.identity.render import event
from servers.identity.usecases.audit import note
from servers.identity.usecases.deps import Deps
from servers.kernel.errors import FieldInvalid, ResourceNotFound
from servers.kernel.ids import bucket_of, new_id
from servers.runtime.call import Principal
from servers.runtime.db import UnitOfWork
from servers.runtime.idempotency import IdempotentRequest


async def create_api_key(
    deps: Deps,
    request: IdempotentRequest,
    principal: Principal,
    *,
    kind: ApiKeyKind,
    display_name: str,
    scopes: Sequence[str],
    expire_time: datetime | None,
) -> NewApiKey:
    """Make an API key. Raises FieldInvalid for a scope that a key cannot carry or the caller does not have."""
    if kind is ApiKeyKind.PUBLISHABLE:
        if scopes:
            raise FieldInvalid.of("scopes", "must be empty: the scopes of a publishable key are fixed")
        scopes = PUBLISHABLE_KEY_SCOPES
    else:
        _check_scopes(principal, scopes)
    if expire_time is not None and expire_time <= deps.clock.now():
        raise FieldInvalid.of("expire_time", "must lie in the future")
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        new = _insert(deps, uow, principal.merchant_id, kind, display_name, scopes, expire_time)
        details = {"kind": kind.value, "scopes": " ".join(scopes)}
        note(deps, uow, principal.merchant_id, "api_key.created", new.key.id, **details)
        uow.idempotency.complete(request, new)
    return new


def _check_scopes(principal: Principal, scopes: Sequence[str]) -> None:
    if not scopes:
        raise FieldInvalid.of("scopes", "must name one scope at least")
    for index, scope in enumerate(scopes):
        if scope not in API_KEY_SCOPES or scope not in principal.scopes:
            raise FieldInvalid.of(
                f"scopes[{index}]", f"must be one that you have yourself, of {', '.join(sorted(API_KEY_SCOPES))}"
            )


def _insert(
    deps: Deps,
    uow: UnitOfWork,
    merchant_id: str,
    kind: ApiKeyKind,
    display_name: str,
    scopes: Sequence[str],
    expire_time: datetime | None,
) -> NewApiKey:
    now = deps.clock.now()
    prefix = kind.prefix(livemode=deps.livemode)
    made = deps.secrets.new(prefix)
    shown = kind is ApiKeyKind.PUBLISHABLE
    key = ApiKey(
        id=new_id("key", clock=deps.clock, bucket=bucket_of(merchant_id)),
        merchant_id=merchant_id,
        kind=kind,
        publishable_key=made if shown else "",
        display_name=display_name,
        scopes=tuple(scopes),
        secret_prefix=made[: len(prefix) + 4],
        expire_time=expire_time,
        last_used_time=None,
        state=API_KEY.arrow(None, "create").target,
        version=1,
        create_time=now,
        update_time=now,
    )
    store.insert_api_key(uow.conn, key, deps.secrets.hash(made))
    uow.outbox.append(event("api_key.created", key))
    return NewApiKey(key=key, secret="" if shown else made)


async def rotate_api_key(
    deps: Deps, request: IdempotentRequest, principal: Principal, *, key_id: str, grace: timedelta
) -> NewApiKey:
    """Make a key like an old one, which works on for `grace`. Raises ResourceNotFound, ApiKeyStateInvalid, FieldInvalid where the
    old one carries a scope that the caller lacks."""
    async with deps.db.uow() as uow:
        await uow.idempotency.claim(request)
        async with uow.refusals(request):
            old = await store.api_key(uow.conn, principal.merchant_id, key_id)
            if old is None:
                raise ResourceNotFound(key_id)
            now = deps.clock.now()
            over = old.expire_time is not None and old.expire_time <= now
            if old.state is not ApiKeyState.ACTIVE or over:
                state = "EXPIRED" if over else old.state.name
                raise ApiKeyStateInvalid("The key has ended; make a new one.", old.id, state)
            # Whoever may make keys may make a publishable one: its scopes open nothing without a `client_secret`.
            if old.kind is ApiKeyKind.SECRET and not principal.scopes.issuperset(old.scopes):
                raise FieldInvalid.of("api_key_id", "carries scopes that you do not have yourself")
            new = _insert(deps, uow, old.merchant_id, old.kind, old.display_name, old.scopes, old.expire_time)
            end = min(now + grace, old.expire_time) if old.expire_time is not None else now + grace
            ending = replace(old, expire_time=end, version=old.version + 1, update_time=now)
            store.limit_api_key(uow.conn, ending, expected=old.version)
            uow.outbox.append(event("api_key.updated", ending))
            note(deps, uow, old.merchant_id, "api_key.rotated", old.id, new_key=new.key.id)
            uow.idempotency.complete(request, new)
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
                store.revoke_api_key(uow.conn, key, now)
                arrow = API_KEY.arrow(key.state, "revoke", key.id)
                key = replace(key, state=arrow.target, version=key.version + 1, update_time=now)
                uow.outbox.append(event(arrow.event, key))
                note(deps, uow, merchant_id, arrow.event, key.id)
            uow.idempotency.complete(request, key)
    return key
