"""One function per command of the identity domain. Passwords are hashed before any transaction opens."""

from __future__ import annotations

from servers.identity.usecases.api_keys import create_api_key, revoke_api_key, rotate_api_key
from servers.identity.usecases.deps import Deps
from servers.identity.usecases.members import (
    accept_invitation,
    decline_invitation,
    expire_invitations,
    invite_member,
    remove_member,
    revoke_invitation,
    update_member,
)
from servers.identity.usecases.merchants import create_merchant, update_merchant
from servers.identity.usecases.sessions import log_in, refresh, revoke_session, switch_merchant
from servers.identity.usecases.staff import remove_staff_role, set_staff_role, switch_staff
from servers.identity.usecases.users import (
    START_RESET,
    change_password,
    create_email_token,
    delete_old_email_tokens,
    register_user,
    request_email_verification,
    request_password_reset,
    reset_password,
    start_password_reset,
    update_user,
    verify_email,
)

__all__ = [
    "START_RESET",
    "Deps",
    "accept_invitation",
    "change_password",
    "create_api_key",
    "create_email_token",
    "create_merchant",
    "decline_invitation",
    "delete_old_email_tokens",
    "expire_invitations",
    "invite_member",
    "log_in",
    "refresh",
    "register_user",
    "remove_member",
    "remove_staff_role",
    "request_email_verification",
    "request_password_reset",
    "reset_password",
    "revoke_api_key",
    "revoke_invitation",
    "revoke_session",
    "rotate_api_key",
    "set_staff_role",
    "start_password_reset",
    "switch_merchant",
    "switch_staff",
    "update_member",
    "update_merchant",
    "update_user",
    "verify_email",
]
