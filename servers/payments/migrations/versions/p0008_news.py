"""What Stripe tells and we did not ask for: conflicts that a person resolves, money in suspense, events that are polled.

Revision ID: p0008
Revises: p0007
"""

from alembic import op

from servers.runtime.schema import append_only, grant, state_machine

revision = "p0008"
down_revision = "p0007"
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
        ("REQUIRES_CAPTURE", "CONFLICTED"),
        ("PARTIALLY_CAPTURED", "PARTIALLY_CAPTURED"),
        ("PARTIALLY_CAPTURED", "SUCCEEDED"),
        ("PARTIALLY_CAPTURED", "CONFLICTED"),
        ("CONFLICTED", "SUCCEEDED"),
        ("CONFLICTED", "CANCELED"),
    ),
}
_CONSTRAINTS = (
    "payments_check",
    "payments_captured_state",
    "payments_authorized",
    "payments_nothing_left",
)


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute("".join(f"ALTER TABLE payments DROP CONSTRAINT {name};" for name in _CONSTRAINTS))
    op.execute(
        """
        ALTER TABLE payments
            ADD COLUMN overcapture_minor bigint NOT NULL DEFAULT 0 CHECK (overcapture_minor >= 0),
            ADD CONSTRAINT payments_captured CHECK (captured_minor BETWEEN 0 AND amount_minor + overcapture_minor),
            ADD CONSTRAINT payments_captured_state
                CHECK (state = 'CONFLICTED' OR (state IN ('SUCCEEDED', 'PARTIALLY_CAPTURED')) = (captured_minor > 0)),
            ADD CONSTRAINT payments_authorized CHECK (
                capturable_minor + capture_pending_minor + captured_minor <= amount_minor + overcapture_minor),
            ADD CONSTRAINT payments_nothing_left
                CHECK (state IN ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED', 'CONFLICTED')
                       OR capturable_minor + capture_pending_minor = 0);

        CREATE TABLE suspense_items (
            owner_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            cause text NOT NULL CHECK (cause IN ('LATE_CAPTURE', 'CONFLICT')), create_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            FOREIGN KEY (owner_id, payment_id) REFERENCES payments (owner_id, id) ON DELETE RESTRICT);
        CREATE INDEX suspense_items_payment ON suspense_items (owner_id, payment_id);

        ALTER TABLE captures ADD COLUMN suspense_item_id text NOT NULL DEFAULT '';
        CREATE UNIQUE INDEX captures_one_per_suspense_item ON captures (owner_id, suspense_item_id) WHERE suspense_item_id <> '';
        ALTER TABLE refunds ADD COLUMN suspense_item_id text NOT NULL DEFAULT '';
        CREATE UNIQUE INDEX refunds_one_per_suspense_item ON refunds (owner_id, suspense_item_id) WHERE suspense_item_id <> '';

        CREATE TABLE staff_actions (
            owner_id text NOT NULL, id text NOT NULL, actor_id text NOT NULL, actor_role text NOT NULL, action text NOT NULL,
            resource_id text NOT NULL, decision text NOT NULL, reason text NOT NULL CHECK (reason <> ''),
            request_id text NOT NULL, create_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id));

        ALTER TABLE stripe_events
            ADD COLUMN source text NOT NULL DEFAULT 'WEBHOOK' CHECK (source IN ('WEBHOOK', 'POLL'));
        CREATE INDEX stripe_events_newest ON stripe_events (receive_time, id);
        CREATE INDEX stripe_events_state ON stripe_events (state, receive_time, id) WHERE state <> 'APPLIED';
        CREATE TABLE stripe_event_cursor (
            one boolean PRIMARY KEY DEFAULT true CHECK (one), seen_time timestamptz NOT NULL,
            target_time timestamptz, after_id text NOT NULL DEFAULT '', complete_time timestamptz NOT NULL,
            CHECK ((after_id <> '') = (target_time IS NOT NULL)));
        """
    )
    state_machine("payment", "payments", STATE_ARROWS["payment"])
    for table in ("suspense_items", "staff_actions"):
        grant(table, "SELECT, INSERT")
        append_only(table)
    grant("stripe_event_cursor", "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    """Bring back what was; refused while there is money in suspense or a payment in conflict that has captures."""
    op.execute("ALTER TABLE payments DROP CONSTRAINT payments_captured, DROP CONSTRAINT payments_captured_state;")
    op.execute(
        """
        DROP TABLE stripe_event_cursor, staff_actions, suspense_items;
        DROP INDEX stripe_events_newest, stripe_events_state;
        ALTER TABLE stripe_events DROP COLUMN source;
        ALTER TABLE refunds DROP COLUMN suspense_item_id;
        ALTER TABLE captures DROP COLUMN suspense_item_id;
        ALTER TABLE payments DROP CONSTRAINT payments_authorized, DROP CONSTRAINT payments_nothing_left,
            DROP COLUMN overcapture_minor,
            ADD CONSTRAINT payments_check CHECK (captured_minor BETWEEN 0 AND amount_minor),
            ADD CONSTRAINT payments_captured_state
                CHECK ((state IN ('SUCCEEDED', 'PARTIALLY_CAPTURED')) = (captured_minor > 0)),
            ADD CONSTRAINT payments_authorized
                CHECK (capturable_minor + capture_pending_minor + captured_minor <= amount_minor),
            ADD CONSTRAINT payments_nothing_left
                CHECK (state IN ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED') OR capturable_minor + capture_pending_minor = 0);
        """
    )
