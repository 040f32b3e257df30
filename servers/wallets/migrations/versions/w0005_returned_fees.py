"""Lots know what was returned of their capture's fee: it is pending money like the rest.

Revision ID: w0005
Revises: w0004
"""

from alembic import op

revision = "w0005"
down_revision = "w0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the lots."""
    op.execute(
        """
        ALTER TABLE lots DROP CONSTRAINT lots_check,
            ADD COLUMN returned_minor bigint NOT NULL DEFAULT 0 CHECK (returned_minor >= 0),
            ADD CONSTRAINT lots_taken CHECK (taken_minor >= 0 AND (settled OR taken_minor <= net_minor + returned_minor));
        """
    )


def downgrade() -> None:
    """Bring back what was; refused while a lot gave more than its own net."""
    op.execute(
        """
        ALTER TABLE lots DROP CONSTRAINT lots_taken, DROP COLUMN returned_minor,
            ADD CONSTRAINT lots_check CHECK (taken_minor BETWEEN 0 AND net_minor);
        """
    )
