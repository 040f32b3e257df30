"""Staff: users with a role at the platform, and the secret of their authenticator app.

Revision ID: i0007
Revises: i0003
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "i0007"
down_revision = "i0003"
branch_labels = None
depends_on = None

STATE_ARROWS = {"staff": ((None, "ACTIVE"), ("ACTIVE", "ACTIVE"), ("ACTIVE", "REMOVED"), ("REMOVED", "ACTIVE"))}


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE staff (
            user_id text PRIMARY KEY REFERENCES users (id) ON DELETE RESTRICT, id text NOT NULL UNIQUE,
            role text NOT NULL CHECK (role IN ('operator', 'risk', 'support', 'finance')), state text NOT NULL,
            sealed_secret bytea NOT NULL, last_step bigint NOT NULL DEFAULT 0,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL);
        """
    )
    state_machine("staff", "staff", STATE_ARROWS["staff"])
    grant("staff", "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE staff; DELETE FROM state_arrows WHERE machine = 'staff'")
