"""Indexes for what was read without: an attempt by its id alone, a payment's captures in their order, what moved for disputes.

Revision ID: p0011
Revises: p0010
"""

from alembic import op

revision = "p0011"
down_revision = "p0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.execute(
        """
        CREATE INDEX attempts_id ON attempts (id);
        DROP INDEX captures_payment;
        CREATE INDEX captures_payment ON captures (owner_id, payment_id, id);
        CREATE INDEX dispute_movements_time ON dispute_movements (create_time);
        """
    )


def downgrade() -> None:
    """Bring back what was."""
    op.execute(
        """
        DROP INDEX dispute_movements_time;
        DROP INDEX attempts_id;
        DROP INDEX captures_payment;
        CREATE INDEX captures_payment ON captures (owner_id, payment_id);
        """
    )
