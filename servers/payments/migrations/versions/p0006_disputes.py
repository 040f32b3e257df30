"""Disputes, and what they take from their payments.

Revision ID: p0006
Revises: p0005
"""

from alembic import op

from servers.runtime.schema import append_only, grant, state_machine

revision = "p0006"
down_revision = "p0005"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "dispute": (
        (None, "EARLY_WARNING"),
        (None, "NEEDS_RESPONSE"),
        ("EARLY_WARNING", "PREVENTED"),
        ("EARLY_WARNING", "NEEDS_RESPONSE"),
        ("NEEDS_RESPONSE", "UNDER_REVIEW"),
        ("NEEDS_RESPONSE", "ACCEPTED"),
        ("NEEDS_RESPONSE", "LOST"),
        ("NEEDS_RESPONSE", "CLOSED"),
        ("UNDER_REVIEW", "CLOSED"),
        ("NEEDS_RESPONSE", "NEEDS_RESPONSE"),
        ("UNDER_REVIEW", "NEEDS_RESPONSE"),
        ("UNDER_REVIEW", "WON"),
        ("UNDER_REVIEW", "LOST"),
        ("ACCEPTED", "LOST"),
        ("WON", "NEEDS_RESPONSE"),
        ("UNDER_REVIEW", "UNDER_REVIEW"),
        ("ACCEPTED", "ACCEPTED"),
        ("WON", "WON"),
        ("LOST", "LOST"),
        ("PREVENTED", "PREVENTED"),
    ),
}
CURRENCY = "text NOT NULL CHECK ({} ~ '^[A-Z]{{3}}$')"


def upgrade() -> None:
    """Create disputes, their movements of money, and their counters on payments."""
    op.execute(
        f"""
        ALTER TABLE payments
            ADD COLUMN disputed_minor bigint NOT NULL DEFAULT 0 CHECK (disputed_minor >= 0),
            ADD COLUMN open_chargebacks int NOT NULL DEFAULT 0 CHECK (open_chargebacks >= 0),
            ADD COLUMN over_exposure_minor bigint NOT NULL GENERATED ALWAYS AS
                (GREATEST(0, refunded_minor + refund_pending_minor + disputed_minor - captured_minor)) STORED,
            ADD CONSTRAINT payments_chargebacks CHECK (open_chargebacks = 0 OR disputed_minor > 0);
        CREATE INDEX payments_over_exposed ON payments (owner_id, id) WHERE over_exposure_minor > 0;
        CREATE INDEX attempts_charge ON attempts (charge_id) WHERE charge_id <> '';

        CREATE TABLE disputes (
            owner_id text NOT NULL, payment_id text NOT NULL, id text NOT NULL,
            top_up_id text NOT NULL, stripe_dispute_id text NOT NULL, stripe_warning_id text NOT NULL,
            stage text NOT NULL CHECK (stage IN ('INQUIRY', 'CHARGEBACK', 'PRE_ARBITRATION')), state text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency {CURRENCY.format("currency")},
            at_risk_minor bigint NOT NULL CHECK (at_risk_minor > 0), at_risk_currency {CURRENCY.format("at_risk_currency")},
            reason text NOT NULL, evidence_due_time timestamptz, has_evidence boolean NOT NULL, past_due boolean NOT NULL,
            submission_count int NOT NULL CHECK (submission_count >= 0), accepting boolean NOT NULL,
            fee_payer text NOT NULL CHECK (fee_payer IN ('MERCHANT', 'PLATFORM')), stage_time timestamptz NOT NULL,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            FOREIGN KEY (owner_id, payment_id) REFERENCES payments (owner_id, id) ON DELETE RESTRICT,
            CONSTRAINT disputes_origin CHECK (stripe_dispute_id <> '' OR stripe_warning_id <> ''),
            CONSTRAINT disputes_warning CHECK (stripe_dispute_id <> '' OR state IN ('EARLY_WARNING', 'PREVENTED')),
            CONSTRAINT disputes_inquiry CHECK (stage = 'INQUIRY' OR state NOT IN ('EARLY_WARNING', 'CLOSED')),
            CONSTRAINT disputes_chargeback CHECK (stage <> 'INQUIRY' OR state NOT IN ('ACCEPTED', 'WON', 'LOST')),
            CONSTRAINT disputes_accepting CHECK (NOT accepting OR (state = 'NEEDS_RESPONSE' AND stage <> 'INQUIRY')));
        CREATE INDEX disputes_id ON disputes (id);
        CREATE INDEX disputes_payment ON disputes (owner_id, payment_id);
        CREATE UNIQUE INDEX disputes_stripe ON disputes (stripe_dispute_id) WHERE stripe_dispute_id <> '';
        CREATE UNIQUE INDEX disputes_stripe_warning ON disputes (stripe_warning_id) WHERE stripe_warning_id <> '';

        CREATE TABLE dispute_movements (
            owner_id text NOT NULL, dispute_id text NOT NULL, id text NOT NULL,
            amount_minor bigint NOT NULL, fee_minor bigint NOT NULL, currency {CURRENCY.format("currency")},
            create_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, dispute_id, id),
            FOREIGN KEY (owner_id, dispute_id) REFERENCES disputes (owner_id, id) ON DELETE RESTRICT,
            CHECK (amount_minor <> 0 OR fee_minor <> 0));
        CREATE UNIQUE INDEX dispute_movements_id ON dispute_movements (id);
        """
    )
    state_machine("dispute", "disputes", STATE_ARROWS["dispute"])
    grant("disputes", "SELECT, INSERT, UPDATE")
    grant("dispute_movements", "SELECT, INSERT")
    append_only("dispute_movements")


def downgrade() -> None:
    """Drop disputes; refused while a payment's refunds and disputes exceed what was captured."""
    op.execute(
        """
        DROP TABLE dispute_movements, disputes;
        DROP INDEX attempts_charge, payments_over_exposed;
        ALTER TABLE payments DROP COLUMN over_exposure_minor, DROP COLUMN disputed_minor, DROP COLUMN open_chargebacks;
        DELETE FROM state_arrows WHERE machine = 'dispute';
        """
    )
