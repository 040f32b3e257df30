"""Lots settle: when they are due, and whether they are.

Revision ID: w0002
Revises: w0001
"""

from alembic import op

revision = "w0002"
down_revision = "w0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the lots."""
    op.execute(
        """
        ALTER TABLE lots ADD COLUMN due_time timestamptz, ADD COLUMN settled boolean NOT NULL DEFAULT false;
        UPDATE lots SET due_time = capture_time + interval '2 days';
        ALTER TABLE lots ALTER COLUMN due_time SET NOT NULL;
        CREATE INDEX lots_due ON lots (due_time) WHERE NOT settled;
        """
    )


def downgrade() -> None:
    """Bring back what was."""
    op.execute("ALTER TABLE lots DROP COLUMN due_time, DROP COLUMN settled")
