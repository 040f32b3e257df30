"""What a cardholder must do is kept only while they are asked for it; a failure without a charge is told from that of the attempt
after it.

Revision ID: p0005
Revises: p0004
"""

from alembic import op

revision = "p0005"
down_revision = "p0004"
branch_labels = None
depends_on = None

ASKED = ("attempts", "setup_intents")


def upgrade() -> None:
    """Forget the secrets of what has ended, and keep it so."""
    for table in ASKED:
        op.execute(
            f"""
            UPDATE {table} SET next_action_url = '', next_action_secret = NULL WHERE state <> 'REQUIRES_ACTION';
            ALTER TABLE {table} ADD CONSTRAINT {table}_next_action
                CHECK (state = 'REQUIRES_ACTION' OR (next_action_url = '' AND next_action_secret IS NULL));
            """
        )
    op.execute(
        """
        ALTER TABLE attempts ADD COLUMN prior_uncharged boolean NOT NULL DEFAULT false;
        UPDATE attempts later SET prior_uncharged = true
        WHERE EXISTS (SELECT 1 FROM attempts earlier
                      WHERE earlier.owner_id = later.owner_id AND earlier.payment_id = later.payment_id
                        AND earlier.id < later.id AND earlier.state = 'DECLINED' AND earlier.charge_id = ''
                        AND earlier.wallet_id = '');
        """
    )


def downgrade() -> None:
    """Let it be kept again."""
    for table in ASKED:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_next_action")
    op.execute("ALTER TABLE attempts DROP COLUMN prior_uncharged")
