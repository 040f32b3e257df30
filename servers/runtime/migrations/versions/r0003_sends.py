"""Outbound calls know how often they were sent: only the one and only sending of a call can prove that it never arrived.

Revision ID: r0003
Revises: r0002
"""

from alembic import op

revision = "r0003"
down_revision = "r0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count the sendings; what is known of the calls until now is that they may have been sent."""
    op.execute(
        """
        ALTER TABLE outbound_calls ADD COLUMN sends int NOT NULL DEFAULT 1 CHECK (sends >= 0);
        ALTER TABLE outbound_calls ALTER COLUMN sends SET DEFAULT 0;
        UPDATE outbound_calls SET sends = 0 WHERE state = 'NOT_SENT';
        ALTER TABLE outbound_calls ADD CONSTRAINT outbound_calls_not_sent CHECK (state <> 'NOT_SENT' OR sends = 0);
        """
    )


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE outbound_calls DROP COLUMN sends")
