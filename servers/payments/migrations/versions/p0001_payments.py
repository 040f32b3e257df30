"""Payment methods, payments, attempts, captures, refunds, Stripe's webhooks.

Every key starts with the owner: the merchant, or the user for what belongs to a user.

Revision ID: p0001
Revises:
"""

from alembic import op

from servers.runtime.schema import append_only, grant, state_machine

revision = "p0001"
down_revision = None
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "payment": (
        (None, "REQUIRES_PAYMENT_METHOD"),
        ("REQUIRES_PAYMENT_METHOD", "REQUIRES_CONFIRMATION"),
        ("REQUIRES_CONFIRMATION", "PROCESSING"),
        ("PROCESSING", "REQUIRES_CONFIRMATION"),
        ("PROCESSING", "SUCCEEDED"),
        ("PROCESSING", "REQUIRES_PAYMENT_METHOD"),
        ("PROCESSING", "REQUIRES_ACTION"),
        ("PROCESSING", "CONFLICTED"),
        ("REQUIRES_ACTION", "PROCESSING"),
        ("REQUIRES_ACTION", "REQUIRES_PAYMENT_METHOD"),
    ),
    "attempt": (
        (None, "CREATED"),
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
    ),
    "refund": (
        (None, "PENDING"),
        ("PENDING", "SUCCEEDED"),
        ("PENDING", "FAILED"),
        ("PENDING", "CANCELED"),
        ("SUCCEEDED", "FAILED"),
    ),
    "payment_method": ((None, "ATTACHING"), ("ATTACHING", "ATTACHED"), ("ATTACHING", "REJECTED")),
}
CURRENCY = "text NOT NULL CHECK (currency ~ '^[A-Z]{3}$')"


def upgrade() -> None:
    """Create the domain's tables."""
    op.execute(
        f"""
        CREATE TABLE stripe_customers (
            owner_id text PRIMARY KEY, stripe_id text NOT NULL UNIQUE, create_time timestamptz NOT NULL);

        CREATE TABLE payment_methods (
            owner_id text NOT NULL, id text NOT NULL, stripe_id text NOT NULL, state text NOT NULL,
            brand text, last4 text CHECK (last4 ~ '^[0-9]{{4}}$'), exp_month int CHECK (exp_month BETWEEN 1 AND 12),
            exp_year int, funding text, country text,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            CHECK ((state = 'ATTACHED') = (brand IS NOT NULL)));

        CREATE TABLE payments (
            merchant_id text NOT NULL, id text NOT NULL, customer_id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency {CURRENCY}, state text NOT NULL,
            captured_minor bigint NOT NULL DEFAULT 0 CHECK (captured_minor BETWEEN 0 AND amount_minor),
            refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
            refund_pending_minor bigint NOT NULL DEFAULT 0 CHECK (refund_pending_minor >= 0),
            stripe_payment_intent_id text, description text NOT NULL, metadata jsonb NOT NULL,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id),
            CHECK (refunded_minor + refund_pending_minor <= captured_minor),
            CHECK ((state = 'SUCCEEDED') = (captured_minor > 0)));
        CREATE INDEX payments_customer ON payments (customer_id, id);
        CREATE INDEX payments_id ON payments (id);
        CREATE INDEX payments_intent ON payments (stripe_payment_intent_id) WHERE stripe_payment_intent_id IS NOT NULL;

        CREATE TABLE attempts (
            merchant_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            payment_method_id text NOT NULL, stripe_payment_method_id text NOT NULL, state text NOT NULL,
            charge_id text NOT NULL DEFAULT '', prior_charge_id text NOT NULL DEFAULT '',
            decline_code text, decline_action text, decline_message text, next_action_url text NOT NULL DEFAULT '',
            create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id),
            FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id) ON DELETE RESTRICT,
            CHECK ((state = 'DECLINED') = (decline_code IS NOT NULL)));
        CREATE INDEX attempts_payment ON attempts (merchant_id, payment_id, id);
        CREATE UNIQUE INDEX attempts_one_open ON attempts (merchant_id, payment_id)
            WHERE state IN ('CREATED', 'SENT', 'PENDING', 'UNKNOWN', 'NEEDS_OPERATOR');
        CREATE UNIQUE INDEX attempts_one_success ON attempts (merchant_id, payment_id) WHERE state = 'SUCCEEDED';

        CREATE TABLE captures (
            merchant_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency {CURRENCY},
            fee_minor bigint NOT NULL CHECK (fee_minor BETWEEN 0 AND amount_minor), fee_plan_version text NOT NULL,
            capture_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id),
            FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id) ON DELETE RESTRICT);
        CREATE INDEX captures_payment ON captures (merchant_id, payment_id);

        CREATE TABLE refunds (
            merchant_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency {CURRENCY}, reason text NOT NULL,
            state text NOT NULL, stripe_refund_id text NOT NULL DEFAULT '', failure_reason text NOT NULL DEFAULT '',
            uncertain boolean NOT NULL DEFAULT false, metadata jsonb NOT NULL,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (merchant_id, id),
            FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id) ON DELETE RESTRICT);
        CREATE INDEX refunds_payment ON refunds (merchant_id, payment_id, id);
        CREATE INDEX refunds_id ON refunds (id);

        CREATE TABLE stripe_events (
            id text PRIMARY KEY, type text NOT NULL, object_id text NOT NULL, payment_intent_id text NOT NULL,
            refund_id text NOT NULL, body bytea NOT NULL, state text NOT NULL CHECK (state IN ('STORED', 'APPLIED', 'DEAD')),
            tries int NOT NULL DEFAULT 0, next_time timestamptz NOT NULL, receive_time timestamptz NOT NULL,
            error text NOT NULL DEFAULT '');
        CREATE INDEX stripe_events_due ON stripe_events (next_time) WHERE state = 'STORED';
        """
    )
    for machine, arrows in STATE_ARROWS.items():
        state_machine(machine, f"{machine}s", arrows)
    for table in ("stripe_customers", "captures"):
        grant(table, "SELECT, INSERT")
        append_only(table)
    for table in ("payment_methods", "payments", "attempts", "refunds", "stripe_events"):
        grant(table, "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    """Drop the domain's tables."""
    op.execute(
        "DROP TABLE stripe_events, refunds, captures, attempts, payments, payment_methods, stripe_customers;"
        " DELETE FROM state_arrows"
    )
