"""The gRPC face of the identity domain: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from google.api import httpbody_pb2
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc

from servers.identity import store, usecases
from servers.identity.render import (
    api_key_message,
    merchant_message,
    new_api_key_message,
    session_message,
    tokens_message,
    user_message,
)
from servers.identity.usecases import Deps
from servers.kernel.errors import ResourceNotFound
from servers.runtime.call import PrincipalKind, current_call
from servers.runtime.pagination import Pages
from servers.runtime.render import instant
from servers.runtime.requests import idempotent


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """Users, sessions, merchants, API keys."""

    def __init__(self, deps: Deps, pages: Pages) -> None:
        self._deps = deps
        self._pages = pages

    async def RegisterUser(self, request: identity_pb2.RegisterUserRequest, context: Any) -> identity_pb2.User:
        """Register a user."""
        ticket = idempotent(request, render=user_message, tenant=self._stranger(request.email), secret=True)
        user = await usecases.register_user(
            self._deps, ticket, email=request.email, password=request.password, display_name=request.display_name
        )
        return user_message(user)

    async def GetMe(self, request: identity_pb2.GetMeRequest, context: Any) -> identity_pb2.User:
        """Return the caller."""
        async with self._deps.db.read() as conn:
            return user_message(await store.user(conn, current_call().principal.subject))

    async def CreateSession(
        self, request: identity_pb2.CreateSessionRequest, context: Any
    ) -> identity_pb2.SessionTokens:
        """Log in."""
        ticket = idempotent(request, render=tokens_message, tenant=self._stranger(request.email), secret=True)
        return tokens_message(await usecases.log_in(self._deps, ticket, email=request.email, password=request.password))

    async def RefreshSession(
        self, request: identity_pb2.RefreshSessionRequest, context: Any
    ) -> identity_pb2.SessionTokens:
        """Exchange a refresh token."""
        ticket = idempotent(request, render=tokens_message, tenant=self._stranger(request.refresh_token), secret=True)
        return tokens_message(await usecases.refresh(self._deps, ticket, request.refresh_token))

    async def SwitchMerchant(
        self, request: identity_pb2.SwitchMerchantRequest, context: Any
    ) -> identity_pb2.SessionTokens:
        """Act for a merchant."""
        principal = current_call().principal
        ticket = idempotent(request, render=tokens_message, tenant=principal.subject, secret=True)
        return tokens_message(await usecases.switch_merchant(self._deps, ticket, principal, request.merchant_id))

    async def RevokeSession(self, request: identity_pb2.RevokeSessionRequest, context: Any) -> identity_pb2.Session:
        """Log out."""
        principal = current_call().principal
        ticket = idempotent(request, render=session_message, tenant=principal.subject)
        return session_message(await usecases.revoke_session(self._deps, ticket, principal))

    async def CreateMerchant(self, request: identity_pb2.CreateMerchantRequest, context: Any) -> identity_pb2.Merchant:
        """Create a merchant."""
        ticket = idempotent(request, render=merchant_message)
        merchant = await usecases.create_merchant(
            self._deps,
            ticket,
            owner_id=current_call().principal.subject,
            display_name=request.display_name,
            country=request.country,
            default_currency=request.default_currency,
        )
        return merchant_message(merchant)

    async def GetMerchant(self, request: identity_pb2.GetMerchantRequest, context: Any) -> identity_pb2.Merchant:
        """Return a merchant that the caller belongs to."""
        principal = current_call().principal
        async with self._deps.db.read() as conn:
            if principal.kind is PrincipalKind.API_KEY:
                own = principal.merchant_id == request.merchant_id
                found = await store.merchant(conn, request.merchant_id) if own else None
            else:
                found = await store.merchant_of_member(conn, request.merchant_id, principal.subject)
        if found is None:
            raise ResourceNotFound(request.merchant_id)
        return merchant_message(found)

    async def ListMerchants(
        self, request: identity_pb2.ListMerchantsRequest, context: Any
    ) -> identity_pb2.ListMerchantsResponse:
        """List the caller's merchants."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.merchants_of_user(
                conn, current_call().principal.subject, before=page.before, limit=page.size + 1
            )
        return identity_pb2.ListMerchantsResponse(
            merchants=[merchant_message(merchant) for merchant in found[: page.size]],
            next_page_token=self._pages.token(request, [merchant.id for merchant in found], page.size),
        )

    async def CreateApiKey(
        self, request: identity_pb2.CreateApiKeyRequest, context: Any
    ) -> identity_pb2.CreateApiKeyResponse:
        """Make an API key."""
        ticket = idempotent(request, render=new_api_key_message, secret=True)
        new = await usecases.create_api_key(
            self._deps,
            ticket,
            current_call().principal,
            display_name=request.display_name,
            scopes=request.scopes,
            expire_time=instant(request.expire_time) if request.HasField("expire_time") else None,
        )
        return new_api_key_message(new)

    async def ListApiKeys(
        self, request: identity_pb2.ListApiKeysRequest, context: Any
    ) -> identity_pb2.ListApiKeysResponse:
        """List the merchant's API keys."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.api_keys(
                conn, current_call().principal.merchant_id, before=page.before, limit=page.size + 1
            )
        return identity_pb2.ListApiKeysResponse(
            api_keys=[api_key_message(key) for key in found[: page.size]],
            next_page_token=self._pages.token(request, [key.id for key in found], page.size),
        )

    async def RevokeApiKey(self, request: identity_pb2.RevokeApiKeyRequest, context: Any) -> identity_pb2.ApiKey:
        """Revoke an API key."""
        ticket = idempotent(request, render=api_key_message)
        merchant_id = current_call().principal.merchant_id
        key = await usecases.revoke_api_key(self._deps, ticket, merchant_id=merchant_id, key_id=request.api_key_id)
        return api_key_message(key)

    async def GetJwks(self, request: identity_pb2.GetJwksRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Return the key set."""
        return httpbody_pb2.HttpBody(content_type="application/jwk-set+json", data=self._deps.signer.jwks())

    def _stranger(self, name: str) -> str:
        """Return the tenant of a caller without a credential: a keyed hash, so that the key table tells no addresses."""
        return f"stranger:{self._deps.secrets.hash(store.email_key(name)).hex()[:32]}"
