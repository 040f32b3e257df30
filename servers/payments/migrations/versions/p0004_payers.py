"""Whoever pays: shoppers without a login, wallets, top-ups, setup intents, mandates.

Rows belong to an owner now: the merchant of a sale, the user of a top-up.

Revision ID: p0004
Revises: p0003
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "p0004"
down_revision = "p0003"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "payment": (
        (None, "REQUIRES_PAYMENT_METHOD"),
        (None, "REQUIRES_CONFIRMATION"),
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
    "payment_method": (
        (None, "ATTACHING"),
        (None, "ATTACHED"),
        ("ATTACHING", "ATTACHED"),
        ("ATTACHING", "REJECTED"),
        ("ATTACHED", "ATTACHED"),
        ("ATTACHED", "DETACHING"),
        ("DETACHING", "DETACHED"),
    ),
    "setup_intent": (
        (None, "REQUIRES_PAYMENT_METHOD"),
        ("REQUIRES_PAYMENT_METHOD", "PROCESSING"),
        ("PROCESSING", "SUCCEEDED"),
        ("PROCESSING", "REQUIRES_ACTION"),
        ("PROCESSING", "REQUIRES_PAYMENT_METHOD"),
        ("PROCESSING", "CANCELED"),
        ("REQUIRES_ACTION", "PROCESSING"),
        ("REQUIRES_ACTION", "REQUIRES_PAYMENT_METHOD"),
        ("REQUIRES_ACTION", "CANCELED"),
    ),
    "mandate": ((None, "ACTIVE"), ("ACTIVE", "REVOKED")),
}
OWNED = ("payments", "attempts", "captures", "operations", "refunds")
USAGE = "CHECK (usage IN ('ON_SESSION', 'OFF_SESSION'))"


def upgrade() -> None:
    """Widen the domain's tables."""
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN merchant_id TO owner_id")
    op.execute(
        f"""
        ALTER TABLE payments
            ADD COLUMN purpose text NOT NULL DEFAULT 'SALE' CHECK (purpose IN ('SALE', 'TOP_UP')),
            ADD COLUMN top_up_id text NOT NULL DEFAULT '',
            ADD COLUMN payment_method_id text NOT NULL DEFAULT '',
            ADD COLUMN statement_descriptor_suffix text NOT NULL DEFAULT '',
            ADD CONSTRAINT payments_top_up
                CHECK ((purpose = 'TOP_UP') = (top_up_id <> '') AND (purpose = 'SALE' OR owner_id = customer_id));
        CREATE UNIQUE INDEX payments_one_per_top_up ON payments (owner_id, top_up_id) WHERE top_up_id <> '';
        CREATE INDEX payments_window ON payments (capture_before_time)
            WHERE state IN ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED');

        ALTER TABLE attempts
            ADD COLUMN wallet_id text NOT NULL DEFAULT '',
            ADD COLUMN off_session boolean NOT NULL DEFAULT false,
            ADD COLUMN return_url text NOT NULL DEFAULT '',
            ADD COLUMN use_stripe_sdk boolean NOT NULL DEFAULT false,
            ADD COLUMN save_for text NOT NULL DEFAULT '' CHECK (save_for IN ('', 'ON_SESSION', 'OFF_SESSION')),
            ADD COLUMN next_action_secret bytea,
            ADD CONSTRAINT attempts_source CHECK ((wallet_id <> '') = (stripe_payment_method_id = ''));

        CREATE TABLE setup_intents (
            owner_id text NOT NULL, id text NOT NULL, merchant_id text NOT NULL, usage text NOT NULL {USAGE},
            state text NOT NULL, uncertain boolean NOT NULL DEFAULT false, confirms int NOT NULL DEFAULT 0,
            stripe_id text NOT NULL DEFAULT '', stripe_payment_method_id text NOT NULL DEFAULT '',
            return_url text NOT NULL DEFAULT '',
            use_stripe_sdk boolean NOT NULL DEFAULT false, next_action_url text NOT NULL DEFAULT '', next_action_secret bytea,
            decline_code text, decline_action text, decline_message text,
            payment_method_id text NOT NULL DEFAULT '', mandate_id text NOT NULL DEFAULT '',
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            CHECK ((state = 'SUCCEEDED') = (payment_method_id <> '')),
            CHECK (mandate_id = '' OR (state = 'SUCCEEDED' AND merchant_id <> '')));
        CREATE INDEX setup_intents_id ON setup_intents (id);
        CREATE INDEX setup_intents_stripe ON setup_intents (stripe_id) WHERE stripe_id <> '';

        CREATE TABLE mandates (
            owner_id text NOT NULL, id text NOT NULL, merchant_id text NOT NULL, payment_method_id text NOT NULL,
            usage text NOT NULL {USAGE}, state text NOT NULL,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            revoke_time timestamptz,
            PRIMARY KEY (owner_id, id),
            FOREIGN KEY (owner_id, payment_method_id) REFERENCES payment_methods (owner_id, id) ON DELETE RESTRICT,
            CHECK ((state = 'REVOKED') = (revoke_time IS NOT NULL)));
        CREATE UNIQUE INDEX mandates_one_active ON mandates (owner_id, merchant_id, payment_method_id) WHERE state = 'ACTIVE';
        CREATE INDEX mandates_merchant ON mandates (merchant_id, id);

        CREATE TABLE payment_settings (
            merchant_id text PRIMARY KEY, return_url_origins text[] NOT NULL,
            version bigint NOT NULL CHECK (version > 0), update_time timestamptz NOT NULL);

        ALTER TABLE stripe_events ADD COLUMN setup_intent_id text NOT NULL DEFAULT '';
        """
    )
    for machine, table in (
        ("payment", "payments"),
        ("payment_method", "payment_methods"),
        ("setup_intent", "setup_intents"),
        ("mandate", "mandates"),
    ):
        state_machine(machine, table, STATE_ARROWS[machine])
    for table in ("setup_intents", "mandates", "payment_settings"):
        grant(table, "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    """Bring back what was; refused while there are payments that only the new tables can hold."""
    op.execute(
        """
        DROP TABLE payment_settings, mandates, setup_intents;
        ALTER TABLE stripe_events DROP COLUMN setup_intent_id;
        ALTER TABLE attempts DROP COLUMN wallet_id, DROP COLUMN off_session, DROP COLUMN return_url, DROP COLUMN use_stripe_sdk,
            DROP COLUMN save_for, DROP COLUMN next_action_secret;
        ALTER TABLE payments DROP COLUMN purpose, DROP COLUMN top_up_id, DROP COLUMN payment_method_id,
            DROP COLUMN statement_descriptor_suffix;
        """
    )
    for table in OWNED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN owner_id TO merchant_id")
