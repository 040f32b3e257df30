"""The ends of plans. A call that the provider has answered and is not done with may be at the end of its plan: then its news come
by webhook, by polling and to whoever reads. An answer with a secret in it is kept for a day, however long its key is.

Revision ID: r0004
Revises: r0003
"""

from alembic import op

revision = "r0004"
down_revision = "r0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let PENDING be without a next look, and give answers their end."""
    op.execute(
        """
        ALTER TABLE idempotency_keys ADD COLUMN answer_until timestamptz;
        CREATE INDEX idempotency_keys_sealed ON idempotency_keys (answer_until) WHERE answer_until IS NOT NULL;
        ALTER TABLE outbound_calls DROP CONSTRAINT outbound_calls_check,
            ADD CONSTRAINT outbound_calls_next_poll CHECK (
                CASE WHEN state IN ('CREATED', 'UNKNOWN') THEN next_poll_time IS NOT NULL
                     WHEN state = 'PENDING' THEN true ELSE next_poll_time IS NULL END);
        """
    )


def downgrade() -> None:
    """Bring back what was."""
    op.execute(
        """
        ALTER TABLE idempotency_keys DROP COLUMN answer_until;
        UPDATE outbound_calls SET next_poll_time = now() WHERE state = 'PENDING' AND next_poll_time IS NULL;
        ALTER TABLE outbound_calls DROP CONSTRAINT outbound_calls_next_poll,
            ADD CONSTRAINT outbound_calls_check
                CHECK ((next_poll_time IS NOT NULL) = (state IN ('CREATED', 'UNKNOWN', 'PENDING')));
        """
    )
