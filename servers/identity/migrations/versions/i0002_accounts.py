"""Verified addresses, tokens of mails, members with states, invitations, the audit log.

Revision ID: i0002
Revises: i0001
"""

from alembic import op

from servers.runtime.schema import append_only, grant, state_machine

revision = "i0002"
down_revision = "i0001"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "member": ((None, "ACTIVE"), ("ACTIVE", "ACTIVE"), ("ACTIVE", "REMOVED"), ("REMOVED", "ACTIVE")),
    "invitation": (
        (None, "OPEN"),
        ("OPEN", "ACCEPTED"),
        ("OPEN", "DECLINED"),
        ("OPEN", "REVOKED"),
        ("OPEN", "EXPIRED"),
    ),
}
ROLES = "('owner', 'admin', 'finance', 'support', 'developer', 'viewer')"


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute(
        f"""
        ALTER TABLE users ADD COLUMN email_verified boolean NOT NULL DEFAULT false;
        ALTER TABLE sessions ADD COLUMN last_used_time timestamptz, ADD COLUMN user_agent text NOT NULL DEFAULT '',
                             ADD COLUMN address text NOT NULL DEFAULT '';
        UPDATE sessions SET last_used_time = create_time;
        ALTER TABLE sessions ALTER COLUMN last_used_time SET NOT NULL;

        ALTER TABLE members ADD COLUMN state text NOT NULL DEFAULT 'ACTIVE',
                            ADD COLUMN version bigint NOT NULL DEFAULT 1 CHECK (version > 0);
        ALTER TABLE members ALTER COLUMN state DROP DEFAULT, ALTER COLUMN version DROP DEFAULT;

        CREATE TABLE email_tokens (
            hash bytea PRIMARY KEY, user_id text NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
            purpose text NOT NULL CHECK (purpose IN ('VERIFY_EMAIL', 'RESET_PASSWORD')),
            used boolean NOT NULL DEFAULT false, expire_time timestamptz NOT NULL);
        CREATE INDEX email_tokens_user ON email_tokens (user_id);
        CREATE INDEX email_tokens_expire ON email_tokens (expire_time);

        CREATE TABLE invitations (
            merchant_id text NOT NULL REFERENCES merchants (id) ON DELETE RESTRICT, id text NOT NULL,
            email text NOT NULL, email_key text NOT NULL, role text NOT NULL CHECK (role IN {ROLES}), state text NOT NULL,
            invited_by text NOT NULL, expire_time timestamptz NOT NULL,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id));
        CREATE UNIQUE INDEX invitations_one_open ON invitations (merchant_id, email_key) WHERE state = 'OPEN';
        CREATE INDEX invitations_email ON invitations (email_key, id) WHERE state = 'OPEN';
        CREATE INDEX invitations_id ON invitations (id);

        CREATE TABLE audit_log (
            merchant_id text NOT NULL, id text NOT NULL, actor_id text NOT NULL, actor_role text NOT NULL,
            action text NOT NULL, resource_id text NOT NULL, details jsonb NOT NULL, request_id text NOT NULL,
            create_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id));
        """
    )
    for machine, table in (("member", "members"), ("invitation", "invitations")):
        state_machine(machine, table, STATE_ARROWS[machine])
    grant("email_tokens", "SELECT, INSERT, UPDATE, DELETE")
    grant("invitations", "SELECT, INSERT, UPDATE")
    append_only("audit_log")
    grant("audit_log", "SELECT, INSERT")


def downgrade() -> None:
    """Bring back what was."""
    op.execute(
        """
        DROP TABLE audit_log, invitations, email_tokens;
        DROP TRIGGER members_state_machine ON members;
        ALTER TABLE members DROP COLUMN state, DROP COLUMN version;
        ALTER TABLE sessions DROP COLUMN last_used_time, DROP COLUMN user_agent, DROP COLUMN address;
        ALTER TABLE users DROP COLUMN email_verified;
        DELETE FROM state_arrows WHERE machine IN ('member', 'invitation');
        """
    )
