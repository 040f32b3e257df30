"""Fee plans of merchants, in versions; captures keep their terms, refunds what they return of the fee.

Captures of before keep the platform's delay, and their fee stays with the platform.

Revision ID: p0010
Revises: p0009
"""

from alembic import op

from servers.runtime.schema import append_only, grant

revision = "p0010"
down_revision = "p0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute(
        """
        CREATE TABLE fee_plans (
            merchant_id text NOT NULL, number int NOT NULL CHECK (number > 0),
            basis_points int NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
            fixed_minor jsonb NOT NULL CHECK (jsonb_typeof(fixed_minor) = 'object'),
            fee_refund text NOT NULL CHECK (fee_refund IN ('RETURNED', 'KEPT')),
            settlement_delay_seconds int CHECK (settlement_delay_seconds BETWEEN 0 AND 7776000),
            reason text NOT NULL CHECK (reason <> ''), set_by text NOT NULL CHECK (set_by <> ''),
            effective_time timestamptz NOT NULL, create_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, number),
            CHECK (effective_time > create_time));

        ALTER TABLE captures
            ADD COLUMN fee_due_minor bigint,
            ADD COLUMN fee_refund text NOT NULL DEFAULT 'KEPT' CHECK (fee_refund IN ('RETURNED', 'KEPT')),
            ADD COLUMN settlement_delay_seconds int CHECK (settlement_delay_seconds BETWEEN 0 AND 7776000);

        ALTER TABLE refunds
            ADD COLUMN fee_returned_minor bigint NOT NULL DEFAULT 0 CHECK (fee_returned_minor >= 0);
        """
    )
    grant("fee_plans", "SELECT, INSERT")
    append_only("fee_plans")


def downgrade() -> None:
    """Bring back what was."""
    op.execute(
        """
        ALTER TABLE refunds DROP COLUMN fee_returned_minor;
        ALTER TABLE captures DROP COLUMN fee_due_minor, DROP COLUMN fee_refund, DROP COLUMN settlement_delay_seconds;
        DROP TABLE fee_plans;
        """
    )
