"""Deadlines: captures by schedule.

Revision ID: p0005
Revises: p0004
"""

from alembic import op

revision = "p0005"
down_revision = "p0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute(
        """
        ALTER TABLE payments
            ADD COLUMN capture_deadline timestamptz,
            ADD COLUMN due_time timestamptz,
            ADD CONSTRAINT payments_deadline CHECK (capture_deadline IS NULL OR capture_method = 'MANUAL');
        CREATE INDEX payments_due ON payments (due_time) WHERE due_time IS NOT NULL;
        """
    )


def downgrade() -> None:
    """Bring back what was."""
    op.execute("ALTER TABLE payments DROP COLUMN capture_deadline, DROP COLUMN due_time")
