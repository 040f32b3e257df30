"""Deadlines, reviews, and refunds that wait: captures by schedule, refunds that are canceled.

Revision ID: p0007
Revises: p0006
"""

from alembic import op

from servers.runtime.schema import state_machine

revision = "p0007"
down_revision = "p0006"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "payment": (
        (None, "REQUIRES_PAYMENT_METHOD"),
        (None, "REQUIRES_CONFIRMATION"),
        ("REQUIRES_PAYMENT_METHOD", "REQUIRES_CONFIRMATION"),
        ("REQUIRES_PAYMENT_METHOD", "CANCELED"),
        ("REQUIRES_CONFIRMATION", "PROCESSING"),
        ("REQUIRES_CONFIRMATION", "REQUIRES_REVIEW"),
        ("REQUIRES_CONFIRMATION", "CANCELED"),
        ("REQUIRES_REVIEW", "PROCESSING"),
        ("REQUIRES_REVIEW", "CANCELED"),
        ("PROCESSING", "REQUIRES_CONFIRMATION"),
        ("PROCESSING", "SUCCEEDED"),
        ("PROCESSING", "REQUIRES_CAPTURE"),
        ("PROCESSING", "REQUIRES_PAYMENT_METHOD"),
        ("PROCESSING", "REQUIRES_ACTION"),
        ("PROCESSING", "CONFLICTED"),
        ("REQUIRES_ACTION", "PROCESSING"),
        ("REQUIRES_ACTION", "REQUIRES_PAYMENT_METHOD"),
        ("REQUIRES_ACTION", "CANCELED"),
        ("REQUIRES_CAPTURE", "PARTIALLY_CAPTURED"),
        ("REQUIRES_CAPTURE", "SUCCEEDED"),
        ("REQUIRES_CAPTURE", "CANCELED"),
        ("REQUIRES_CAPTURE", "EXPIRED"),
        ("PARTIALLY_CAPTURED", "PARTIALLY_CAPTURED"),
        ("PARTIALLY_CAPTURED", "SUCCEEDED"),
    ),
    "attempt": (
        (None, "CREATED"),
        (None, "IN_REVIEW"),
        ("IN_REVIEW", "CREATED"),
        ("IN_REVIEW", "DECLINED"),
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
    "refund": (
        (None, "PENDING"),
        ("PENDING", "PENDING"),
        ("PENDING", "SUCCEEDED"),
        ("PENDING", "FAILED"),
        ("PENDING", "CANCELED"),
        ("PENDING", "REQUIRES_ACTION"),
        ("REQUIRES_ACTION", "PENDING"),
        ("REQUIRES_ACTION", "CANCELED"),
        ("SUCCEEDED", "FAILED"),
    ),
}


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute(
        """
        ALTER TABLE payments
            ADD COLUMN capture_deadline timestamptz,
            ADD COLUMN due_time timestamptz,
            ADD COLUMN review_state text NOT NULL DEFAULT ''
                CHECK (review_state IN ('', 'OPEN', 'APPROVED', 'REJECTED', 'TIMED_OUT')),
            ADD COLUMN review_reasons text[] NOT NULL DEFAULT '{}',
            ADD COLUMN review_expire_time timestamptz,
            ADD CONSTRAINT payments_review CHECK ((state = 'REQUIRES_REVIEW') = (review_state = 'OPEN')),
            ADD CONSTRAINT payments_review_ends CHECK ((review_state = '') = (review_expire_time IS NULL)),
            ADD CONSTRAINT payments_deadline CHECK (capture_deadline IS NULL OR capture_method = 'MANUAL');
        CREATE INDEX payments_due ON payments (due_time) WHERE due_time IS NOT NULL;

        ALTER TABLE refunds
            ADD COLUMN pending_reason text NOT NULL DEFAULT '' CHECK (pending_reason IN ('', 'INSUFFICIENT_MERCHANT_BALANCE',
                'INSUFFICIENT_PLATFORM_BALANCE', 'PROCESSING', 'CHARGE_PENDING')),
            ADD COLUMN retry_time timestamptz,
            ADD CONSTRAINT refunds_pending CHECK (pending_reason = '' OR state = 'PENDING'),
            ADD CONSTRAINT refunds_retry
                CHECK ((retry_time IS NOT NULL) = (pending_reason = 'INSUFFICIENT_MERCHANT_BALANCE'));
        CREATE INDEX refunds_retry_due ON refunds (retry_time) WHERE retry_time IS NOT NULL;
        ALTER TABLE payment_settings ADD COLUMN refunds_wait boolean NOT NULL DEFAULT false;

        ALTER TABLE attempts ADD COLUMN decline_retry_seconds int, ADD COLUMN decline_network_code text NOT NULL DEFAULT '';
        ALTER TABLE setup_intents ADD COLUMN decline_retry_seconds int,
            ADD COLUMN decline_network_code text NOT NULL DEFAULT '';
        """
    )
    for machine in ("payment", "attempt", "refund"):
        state_machine(machine, f"{machine}s", STATE_ARROWS[machine])


def downgrade() -> None:
    """Bring back what was."""
    op.execute(
        """
        ALTER TABLE setup_intents DROP COLUMN decline_retry_seconds, DROP COLUMN decline_network_code;
        ALTER TABLE attempts DROP COLUMN decline_retry_seconds, DROP COLUMN decline_network_code;
        ALTER TABLE payment_settings DROP COLUMN refunds_wait;
        ALTER TABLE refunds DROP COLUMN pending_reason, DROP COLUMN retry_time;
        ALTER TABLE payments DROP COLUMN capture_deadline, DROP COLUMN due_time, DROP COLUMN review_state,
            DROP COLUMN review_reasons, DROP COLUMN review_expire_time;
        """
    )
