"""The gRPC face of the identity domain: proto in, use case, proto out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.api import httpbody_pb2
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc

from servers.identity import store, usecases
from servers.identity.domain import ApiKeyKind, EmailTokenInvalid, TokenPurpose
from servers.identity.pages import ASK, REFUSED, VERIFIED, page
from servers.identity.render import (
    api_key_message,
    audit_entry_message,
    invitation_message,
    member_message,
    merchant_message,
    new_api_key_message,
    session_message,
    tokens_message,
    user_message,
)
from servers.identity.usecases import Deps
from servers.kernel.errors import ResourceNotFound
from servers.runtime.call import Principal, PrincipalKind, current_call
from servers.runtime.pagination import Pages
from servers.runtime.render import expected_version, instant, stamp
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

    async def VerifyEmail(self, request: identity_pb2.VerifyEmailRequest, context: Any) -> identity_pb2.User:
        """Verify an address."""
        ticket = idempotent(request, render=user_message, tenant=self._stranger(request.token), secret=True)
        return user_message(await usecases.verify_email(self._deps, ticket, request.token))

    async def OpenEmailLink(self, request: identity_pb2.OpenEmailLinkRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Show the page behind the link of a mail."""
        if not request.confirm:
            return page(ASK, token=request.token)
        ticket = idempotent(request, render=user_message, tenant=self._stranger(request.token), secret=True)
        try:
            await usecases.verify_email(self._deps, ticket, request.token)
        except EmailTokenInvalid as refusal:
            return page(REFUSED, message=refusal.message)
        return page(VERIFIED)

    async def RequestEmailVerification(
        self, request: identity_pb2.RequestEmailVerificationRequest, context: Any
    ) -> identity_pb2.User:
        """Send the verification mail again."""
        user_id = current_call().principal.subject
        ticket = idempotent(request, render=user_message, tenant=user_id, secret=True)
        return user_message(await usecases.request_email_verification(self._deps, ticket, user_id))

    async def RequestPasswordReset(
        self, request: identity_pb2.RequestPasswordResetRequest, context: Any
    ) -> identity_pb2.RequestPasswordResetResponse:
        """Send a mail with a token, if there is an account."""
        seconds = int(TokenPurpose.RESET_PASSWORD.keep.total_seconds())
        answer = identity_pb2.RequestPasswordResetResponse(expires_in_seconds=seconds)
        ticket = idempotent(request, render=lambda _: answer, tenant=self._stranger(request.email))
        await usecases.request_password_reset(self._deps, ticket, request.email)
        return answer

    async def ResetPassword(self, request: identity_pb2.ResetPasswordRequest, context: Any) -> identity_pb2.User:
        """Set a new password by a mail's token."""
        ticket = idempotent(request, render=user_message, tenant=self._stranger(request.token), secret=True)
        user = await usecases.reset_password(self._deps, ticket, token=request.token, new_password=request.new_password)
        return user_message(user)

    async def ChangePassword(self, request: identity_pb2.ChangePasswordRequest, context: Any) -> identity_pb2.User:
        """Change the caller's password."""
        principal = current_call().principal
        ticket = idempotent(request, render=user_message, tenant=principal.subject, secret=True)
        user = await usecases.change_password(
            self._deps,
            ticket,
            principal,
            current_password=request.current_password,
            new_password=request.new_password,
        )
        return user_message(user)

    async def UpdateMe(self, request: identity_pb2.UpdateMeRequest, context: Any) -> identity_pb2.User:
        """Change the caller's name."""
        user_id = current_call().principal.subject
        ticket = idempotent(request, render=user_message, tenant=user_id, secret=True)
        user = await usecases.update_user(
            self._deps,
            ticket,
            user_id,
            display_name=request.display_name,
            expected=expected_version(request.etag),
        )
        return user_message(user)

    async def CreateSession(
        self, request: identity_pb2.CreateSessionRequest, context: Any
    ) -> identity_pb2.SessionTokens:
        """Log in."""
        ticket = idempotent(request, render=tokens_message, tenant=self._stranger(request.email), secret=True)
        call = current_call()
        tokens = await usecases.log_in(
            self._deps,
            ticket,
            email=request.email,
            password=request.password,
            user_agent=call.user_agent,
            address=call.client_address,
        )
        return tokens_message(tokens)

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

    async def SwitchStaff(self, request: identity_pb2.SwitchStaffRequest, context: Any) -> identity_pb2.SessionTokens:
        """Work for the platform."""
        principal = current_call().principal
        ticket = idempotent(request, render=tokens_message, tenant=principal.subject, secret=True)
        return tokens_message(await usecases.switch_staff(self._deps, ticket, principal, request.totp_code))

    async def RevokeSession(self, request: identity_pb2.RevokeSessionRequest, context: Any) -> identity_pb2.Session:
        """Log out."""
        principal = current_call().principal
        ticket = idempotent(request, render=session_message, tenant=principal.subject)
        return session_message(await usecases.revoke_session(self._deps, ticket, principal, principal.session_id))

    async def ListSessions(
        self, request: identity_pb2.ListSessionsRequest, context: Any
    ) -> identity_pb2.ListSessionsResponse:
        """List the caller's sessions."""
        page = self._pages.read(request)
        principal = current_call().principal
        async with self._deps.db.read() as conn:
            found = await store.sessions(
                conn, principal.subject, now=self._deps.clock.now(), before=page.before, limit=page.size + 1
            )
        return identity_pb2.ListSessionsResponse(
            sessions=[session_message(one, current_id=principal.session_id) for one in found[: page.size]],
            next_page_token=self._pages.token(request, [one.id for one in found], page.size),
        )

    async def DeleteSession(self, request: identity_pb2.DeleteSessionRequest, context: Any) -> identity_pb2.Session:
        """End one of the caller's sessions."""
        principal = current_call().principal
        ticket = idempotent(request, render=session_message, tenant=principal.subject)
        return session_message(await usecases.revoke_session(self._deps, ticket, principal, request.session_id))

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

    async def UpdateMerchant(self, request: identity_pb2.UpdateMerchantRequest, context: Any) -> identity_pb2.Merchant:
        """Change the merchant's name."""
        principal = _member_of(request.merchant_id)
        ticket = idempotent(request, render=merchant_message)
        merchant = await usecases.update_merchant(
            self._deps,
            ticket,
            principal,
            display_name=request.display_name,
            expected=expected_version(request.etag),
        )
        return merchant_message(merchant)

    async def InviteMember(self, request: identity_pb2.InviteMemberRequest, context: Any) -> identity_pb2.Invitation:
        """Invite somebody."""
        principal = _member_of(request.merchant_id)
        ticket = idempotent(request, render=invitation_message, secret=True)
        invitation = await usecases.invite_member(self._deps, ticket, principal, email=request.email, role=request.role)
        return invitation_message(invitation)

    async def ListMembers(
        self, request: identity_pb2.ListMembersRequest, context: Any
    ) -> identity_pb2.ListMembersResponse:
        """List the merchant's members."""
        merchant_id = _member_of(request.merchant_id).merchant_id
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.members(conn, merchant_id, before=page.before, limit=page.size + 1)
        return identity_pb2.ListMembersResponse(
            members=[member_message(member) for member in found[: page.size]],
            next_page_token=self._pages.token(request, [member.user_id for member in found], page.size),
        )

    async def UpdateMember(self, request: identity_pb2.UpdateMemberRequest, context: Any) -> identity_pb2.Member:
        """Change a member's role."""
        principal = _member_of(request.merchant_id)
        ticket = idempotent(request, render=member_message, secret=True)
        member = await usecases.update_member(self._deps, ticket, principal, user_id=request.user_id, role=request.role)
        return member_message(member)

    async def RemoveMember(self, request: identity_pb2.RemoveMemberRequest, context: Any) -> identity_pb2.Member:
        """Remove a member."""
        principal = _member_of(request.merchant_id)
        ticket = idempotent(request, render=member_message, secret=True)
        return member_message(await usecases.remove_member(self._deps, ticket, principal, request.user_id))

    async def ListInvitations(
        self, request: identity_pb2.ListInvitationsRequest, context: Any
    ) -> identity_pb2.ListInvitationsResponse:
        """List the merchant's open invitations."""
        merchant_id = _member_of(request.merchant_id).merchant_id
        page = self._pages.read(request)
        now = self._deps.clock.now()
        async with self._deps.db.read() as conn:
            found = await store.invitations(
                conn, now=now, before=page.before, limit=page.size + 1, merchant_id=merchant_id
            )
        return identity_pb2.ListInvitationsResponse(
            invitations=[invitation_message(one, now=now) for one in found[: page.size]],
            next_page_token=self._pages.token(request, [one.id for one in found], page.size),
        )

    async def RevokeInvitation(
        self, request: identity_pb2.RevokeInvitationRequest, context: Any
    ) -> identity_pb2.Invitation:
        """Take an invitation back."""
        principal = _member_of(request.merchant_id)
        ticket = idempotent(request, render=invitation_message, secret=True)
        return invitation_message(
            await usecases.revoke_invitation(self._deps, ticket, principal, request.invitation_id)
        )

    async def ListMyInvitations(
        self, request: identity_pb2.ListMyInvitationsRequest, context: Any
    ) -> identity_pb2.ListMyInvitationsResponse:
        """List the open invitations to the caller's verified address."""
        page = self._pages.read(request)
        now = self._deps.clock.now()
        async with self._deps.db.read() as conn:
            user = await store.user(conn, current_call().principal.subject)
            found = (
                await store.invitations(conn, now=now, before=page.before, limit=page.size + 1, email=user.email)
                if user.email_verified
                else []
            )
        return identity_pb2.ListMyInvitationsResponse(
            invitations=[invitation_message(one, now=now) for one in found[: page.size]],
            next_page_token=self._pages.token(request, [one.id for one in found], page.size),
        )

    async def AcceptInvitation(
        self, request: identity_pb2.AcceptInvitationRequest, context: Any
    ) -> identity_pb2.Merchant:
        """Become a member."""
        ticket = idempotent(request, render=merchant_message)
        principal = current_call().principal
        return merchant_message(await usecases.accept_invitation(self._deps, ticket, principal, request.invitation_id))

    async def DeclineInvitation(
        self, request: identity_pb2.DeclineInvitationRequest, context: Any
    ) -> identity_pb2.Invitation:
        """Decline an invitation."""
        ticket = idempotent(request, render=invitation_message, secret=True)
        principal = current_call().principal
        return invitation_message(
            await usecases.decline_invitation(self._deps, ticket, principal, request.invitation_id)
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
            kind=ApiKeyKind[identity_pb2.ApiKey.Kind.Name(request.kind or identity_pb2.ApiKey.SECRET)],
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

    async def RotateApiKey(
        self, request: identity_pb2.RotateApiKeyRequest, context: Any
    ) -> identity_pb2.CreateApiKeyResponse:
        """Replace an API key."""
        ticket = idempotent(request, render=new_api_key_message, secret=True)
        new = await usecases.rotate_api_key(
            self._deps,
            ticket,
            current_call().principal,
            key_id=request.api_key_id,
            grace=timedelta(seconds=request.grace_seconds),
        )
        return new_api_key_message(new)

    async def ListAuditLog(
        self, request: identity_pb2.ListAuditLogRequest, context: Any
    ) -> identity_pb2.ListAuditLogResponse:
        """List what members did."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.audit_log(
                conn, current_call().principal.merchant_id, before=page.before, limit=page.size + 1
            )
        return identity_pb2.ListAuditLogResponse(
            entries=[audit_entry_message(entry) for entry in found[: page.size]],
            next_page_token=self._pages.token(request, [entry.id for entry in found], page.size),
        )

    async def GetJwks(self, request: identity_pb2.GetJwksRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Return the key set."""
        return httpbody_pb2.HttpBody(content_type="application/jwk-set+json", data=self._deps.signer.jwks())

    def _stranger(self, name: str) -> str:
        """Return the tenant of a caller without a credential: a keyed hash, so that the key table tells no addresses."""
        return f"stranger:{self._deps.secrets.hash(store.email_key(name)).hex()[:32]}"


def _member_of(merchant_id: str) -> Principal:
    """Return the caller, who acts for this very merchant. Raises ResourceNotFound: another merchant is none of theirs."""
    principal = current_call().principal
    if principal.merchant_id != merchant_id:
        raise ResourceNotFound(merchant_id)
    return principal


class IdentityDirectoryService(identity_pb2_grpc.IdentityDirectoryServiceServicer):
    """What other servers of the mesh ask."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def GetContact(self, request: identity_pb2.GetContactRequest, context: Any) -> identity_pb2.Contact:
        """Return how to reach somebody."""
        async with self._deps.db.read() as conn:
            if request.user_id:
                if not await store.user_exists(conn, request.user_id):
                    raise ResourceNotFound(request.user_id)
                user = await store.user(conn, request.user_id)
                return identity_pb2.Contact(recipients=[_recipient(user.id, user.email, user.display_name)])
            if request.invitation_id:
                invitation = await store.invitation(conn, request.invitation_id)
                if invitation is None:
                    raise ResourceNotFound(request.invitation_id)
                return identity_pb2.Contact(
                    recipients=[_recipient("", invitation.email, "")],
                    merchant_display_name=invitation.merchant_display_name,
                )
            merchant = await store.merchant(conn, request.merchant_id)
            if merchant is None:
                raise ResourceNotFound(request.merchant_id)
            owners = await store.owners(conn, merchant.id)
        return identity_pb2.Contact(
            recipients=[_recipient(owner.user_id, owner.email, owner.display_name) for owner in owners],
            merchant_display_name=merchant.display_name,
        )

    async def CreateEmailToken(
        self, request: identity_pb2.CreateEmailTokenRequest, context: Any
    ) -> identity_pb2.EmailToken:
        """Make a token for a mail."""
        purpose = TokenPurpose[identity_pb2.EmailTokenPurpose.Name(request.purpose)]
        token, expire_time = await usecases.create_email_token(self._deps, request.user_id, purpose)
        return identity_pb2.EmailToken(token=token, expire_time=stamp(expire_time))


def _recipient(user_id: str, email: str, display_name: str) -> identity_pb2.Contact.Recipient:
    return identity_pb2.Contact.Recipient(user_id=user_id, email=email, display_name=display_name)
