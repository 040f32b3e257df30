"""Users, sessions, refresh tokens, merchants, members, API keys.

Revision ID: i0001
Revises:
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "i0001"
down_revision = None
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "session": ((None, "ACTIVE"), ("ACTIVE", "REVOKED")),
    "api_key": ((None, "ACTIVE"), ("ACTIVE", "REVOKED")),
}
STAMPS = """version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL"""


def upgrade() -> None:
    """Create the domain's tables."""
    op.execute(
        f"""
        CREATE TABLE users (
            id text PRIMARY KEY, email text NOT NULL, email_key text NOT NULL UNIQUE, display_name text NOT NULL,
            password_hash bytea NOT NULL, {STAMPS});
        CREATE TABLE sessions (
            user_id text NOT NULL REFERENCES users (id) ON DELETE RESTRICT, id text NOT NULL, state text NOT NULL,
            expire_time timestamptz NOT NULL, {STAMPS},
            PRIMARY KEY (user_id, id));
        CREATE TABLE refresh_tokens (
            hash bytea PRIMARY KEY, user_id text NOT NULL, session_id text NOT NULL, used boolean NOT NULL DEFAULT false,
            expire_time timestamptz NOT NULL,
            FOREIGN KEY (user_id, session_id) REFERENCES sessions (user_id, id) ON DELETE RESTRICT);
        CREATE TABLE merchants (
            id text PRIMARY KEY, display_name text NOT NULL, country text NOT NULL CHECK (country ~ '^[A-Z]{{2}}$'),
            default_currency text NOT NULL CHECK (default_currency ~ '^[A-Z]{{3}}$'), {STAMPS});
        CREATE TABLE members (
            merchant_id text NOT NULL REFERENCES merchants (id) ON DELETE RESTRICT,
            user_id text NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
            role text NOT NULL CHECK (role IN ('owner', 'admin', 'finance', 'support', 'developer', 'viewer')),
            create_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, user_id));
        CREATE INDEX members_user ON members (user_id, merchant_id);
        CREATE TABLE api_keys (
            merchant_id text NOT NULL REFERENCES merchants (id) ON DELETE RESTRICT, id text NOT NULL,
            secret_hash bytea NOT NULL UNIQUE, secret_prefix text NOT NULL, display_name text NOT NULL,
            scopes text[] NOT NULL CHECK (cardinality(scopes) > 0), expire_time timestamptz, last_used_time timestamptz,
            state text NOT NULL, {STAMPS},
            PRIMARY KEY (merchant_id, id));
        """
    )
    state_machine("session", "sessions", STATE_ARROWS["session"])
    state_machine("api_key", "api_keys", STATE_ARROWS["api_key"])
    for table in ("users", "sessions", "refresh_tokens", "merchants", "members", "api_keys"):
        grant(table, "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    """Drop the domain's tables."""
    op.execute("DROP TABLE api_keys, members, merchants, refresh_tokens, sessions, users; DELETE FROM state_arrows")
