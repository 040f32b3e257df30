"""Manual capture, cancel, operations; cards that are the default and cards that are removed.

Revision ID: p0003
Revises: p0002
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "p0003"
down_revision = "p0002"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "payment": (
        (None, "REQUIRES_PAYMENT_METHOD"),
        ("REQUIRES_PAYMENT_METHOD", "REQUIRES_CONFIRMATION"),
        ("REQUIRES_PAYMENT_METHOD", "CANCELED"),
        ("REQUIRES_CONFIRMATION", "PROCESSING"),
        ("REQUIRES_CONFIRMATION", "CANCELED"),
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
    "operation": (
        (None, "CREATED"),
        ("CREATED", "SUCCEEDED"),
        ("CREATED", "FAILED"),
        ("CREATED", "NOT_SENT"),
        ("CREATED", "UNKNOWN"),
        ("UNKNOWN", "SUCCEEDED"),
        ("UNKNOWN", "FAILED"),
        ("UNKNOWN", "NEEDS_OPERATOR"),
        ("NEEDS_OPERATOR", "SUCCEEDED"),
        ("NEEDS_OPERATOR", "FAILED"),
    ),
    "payment_method": (
        (None, "ATTACHING"),
        ("ATTACHING", "ATTACHED"),
        ("ATTACHING", "REJECTED"),
        ("ATTACHED", "ATTACHED"),
        ("ATTACHED", "DETACHING"),
        ("DETACHING", "DETACHED"),
    ),
}


def upgrade() -> None:
    """Widen the domain's tables."""
    op.execute(
        """
        ALTER TABLE payments
            ADD COLUMN capture_method text NOT NULL DEFAULT 'AUTOMATIC' CHECK (capture_method IN ('AUTOMATIC', 'MANUAL')),
            ADD COLUMN capturable_minor bigint NOT NULL DEFAULT 0 CHECK (capturable_minor >= 0),
            ADD COLUMN capture_pending_minor bigint NOT NULL DEFAULT 0 CHECK (capture_pending_minor >= 0),
            ADD COLUMN multicapture boolean NOT NULL DEFAULT false,
            ADD COLUMN capture_before_time timestamptz,
            ADD COLUMN cancellation_reason text NOT NULL DEFAULT '';
        ALTER TABLE payments ALTER COLUMN capture_method DROP DEFAULT;
        ALTER TABLE payments DROP CONSTRAINT payments_check2;
        ALTER TABLE payments
            ADD CONSTRAINT payments_captured_state
                CHECK ((state IN ('SUCCEEDED', 'PARTIALLY_CAPTURED')) = (captured_minor > 0)),
            ADD CONSTRAINT payments_authorized
                CHECK (capturable_minor + capture_pending_minor + captured_minor <= amount_minor),
            ADD CONSTRAINT payments_nothing_left
                CHECK (state IN ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED') OR capturable_minor + capture_pending_minor = 0);

        CREATE TABLE operations (
            merchant_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('CAPTURE', 'CANCEL')),
            amount_minor bigint NOT NULL CHECK (amount_minor >= 0), final boolean NOT NULL,
            captured_before_minor bigint NOT NULL CHECK (captured_before_minor >= 0),
            reason text NOT NULL, failure_code text NOT NULL DEFAULT '', state text NOT NULL,
            create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id),
            FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id) ON DELETE RESTRICT);
        CREATE INDEX operations_payment ON operations (merchant_id, payment_id);
        CREATE INDEX operations_id ON operations (id);
        CREATE UNIQUE INDEX operations_one_open ON operations (merchant_id, payment_id)
            WHERE state IN ('CREATED', 'UNKNOWN', 'NEEDS_OPERATOR');
        CREATE INDEX refunds_merchant ON refunds (merchant_id, id);

        ALTER TABLE payment_methods ADD COLUMN is_default boolean NOT NULL DEFAULT false;
        ALTER TABLE payment_methods DROP CONSTRAINT payment_methods_check;
        ALTER TABLE payment_methods
            ADD CONSTRAINT payment_methods_card
                CHECK ((state IN ('ATTACHED', 'DETACHING', 'DETACHED')) = (brand IS NOT NULL)),
            ADD CONSTRAINT payment_methods_default CHECK (NOT is_default OR state = 'ATTACHED');
        CREATE UNIQUE INDEX payment_methods_one_default ON payment_methods (owner_id) WHERE is_default;
        CREATE INDEX attempts_method ON attempts (payment_method_id)
            WHERE state IN ('CREATED', 'SENT', 'PENDING', 'UNKNOWN', 'NEEDS_OPERATOR', 'REQUIRES_ACTION');
        """
    )
    for machine, table in (("payment", "payments"), ("operation", "operations"), ("payment_method", "payment_methods")):
        state_machine(machine, table, STATE_ARROWS[machine])
    grant("operations", "SELECT, INSERT, UPDATE")
    grant("stripe_customers", "SELECT, INSERT, UPDATE")  # its row orders the changes of an owner's default card


def downgrade() -> None:
    """Bring back what was; refused while there are payments that only the new tables can hold."""
    op.execute(
        """
        DROP TABLE operations;
        DROP INDEX refunds_merchant, payment_methods_one_default, attempts_method;
        ALTER TABLE payment_methods DROP CONSTRAINT payment_methods_card, DROP CONSTRAINT payment_methods_default,
            DROP COLUMN is_default, ADD CONSTRAINT payment_methods_check CHECK ((state = 'ATTACHED') = (brand IS NOT NULL));
        ALTER TABLE payments DROP CONSTRAINT payments_captured_state, DROP CONSTRAINT payments_authorized,
            DROP CONSTRAINT payments_nothing_left, DROP COLUMN capture_method, DROP COLUMN capturable_minor,
            DROP COLUMN capture_pending_minor, DROP COLUMN multicapture, DROP COLUMN capture_before_time,
            DROP COLUMN cancellation_reason,
            ADD CONSTRAINT payments_check2 CHECK ((state = 'SUCCEEDED') = (captured_minor > 0));
        """
    )
