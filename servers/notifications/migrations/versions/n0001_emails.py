"""Mails and known devices.

Revision ID: n0001
Revises:
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "n0001"
down_revision = None
branch_labels = None
depends_on = None

STATE_ARROWS = {"email": ((None, "QUEUED"), ("QUEUED", "SENT"), ("QUEUED", "FAILED"))}


def upgrade() -> None:
    """Create the domain's tables."""
    op.execute(
        """
        CREATE TABLE emails (
            id text PRIMARY KEY, event_id text NOT NULL, recipient text NOT NULL, kind text NOT NULL, user_id text NOT NULL,
            resource_id text NOT NULL, facts jsonb NOT NULL, state text NOT NULL, tries int NOT NULL DEFAULT 0,
            error text NOT NULL DEFAULT '', version bigint NOT NULL CHECK (version > 0),
            create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            UNIQUE (event_id, recipient));
        CREATE INDEX emails_user ON emails (user_id, id);
        CREATE TABLE devices (
            user_id text NOT NULL, device text NOT NULL, first_seen_time timestamptz NOT NULL,
            PRIMARY KEY (user_id, device));
        """
    )
    state_machine("email", "emails", STATE_ARROWS["email"])
    grant("emails", "SELECT, INSERT, UPDATE")
    grant("devices", "SELECT, INSERT")


def downgrade() -> None:
    """Drop the domain's tables."""
    op.execute("DROP TABLE devices, emails; DELETE FROM state_arrows WHERE machine = 'email'")
