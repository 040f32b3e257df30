"""Stripe events are applied by jobs, which carry their own due time. An attempt that waits for a person can still be answered.

Revision ID: p0002
Revises: p0001
"""

from alembic import op

from servers.runtime.schema import state_machine

revision = "p0002"
down_revision = "p0001"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "attempt": (
        (None, "CREATED"),
        ("CREATED", "SENT"),
        ("CREATED", "NOT_SENT"),
        ("SENT", "SUCCEEDED"),
        ("SENT", "DECLINED"),
        ("SENT", "NOT_SENT"),
        ("SENT", "REQUIRES_ACTION"),
        ("SENT", "PENDING"),
        ("SENT", "UNKNOWN"),
        ("REQUIRES_ACTION", "PENDING"),
        ("REQUIRES_ACTION", "SUCCEEDED"),
        ("REQUIRES_ACTION", "DECLINED"),
        ("PENDING", "SUCCEEDED"),
        ("PENDING", "DECLINED"),
        ("UNKNOWN", "SUCCEEDED"),
        ("UNKNOWN", "DECLINED"),
        ("UNKNOWN", "REQUIRES_ACTION"),
        ("UNKNOWN", "PENDING"),
        ("UNKNOWN", "NEEDS_OPERATOR"),
        ("NEEDS_OPERATOR", "SUCCEEDED"),
        ("NEEDS_OPERATOR", "DECLINED"),
        ("NEEDS_OPERATOR", "REQUIRES_ACTION"),
        ("NEEDS_OPERATOR", "PENDING"),
    ),
}


def upgrade() -> None:
    """Drop what the former worker went by."""
    state_machine("attempt", "attempts", STATE_ARROWS["attempt"])
    op.execute("DROP INDEX stripe_events_due; ALTER TABLE stripe_events DROP COLUMN next_time")


def downgrade() -> None:
    """Bring it back."""
    op.execute(
        """
        ALTER TABLE stripe_events ADD COLUMN next_time timestamptz NOT NULL DEFAULT now();
        CREATE INDEX stripe_events_due ON stripe_events (next_time) WHERE state = 'STORED';
        """
    )
