"""Reconciliation: a copy of Stripe's balance transactions, and how each compares with our records.

Revision ID: p0009
Revises: p0008
"""

from alembic import op

from servers.runtime.schema import grant, state_machine

revision = "p0009"
down_revision = "p0008"
branch_labels = None
depends_on = None

STATE_ARROWS = {
    "reconciliation_item": (
        (None, "EXPECTED"),
        (None, "UNEXPECTED"),
        ("EXPECTED", "MATCHED"),
        ("EXPECTED", "PARTIAL"),
        ("EXPECTED", "MISMATCH"),
        ("EXPECTED", "MISSING"),
        ("PARTIAL", "PARTIAL"),
        ("PARTIAL", "MISMATCH"),
        ("MISSING", "MATCHED"),
        ("MISSING", "PARTIAL"),
        ("MISSING", "MISMATCH"),
        ("MISSING", "VOID"),
        ("UNEXPECTED", "MATCHED"),
        ("UNEXPECTED", "VOID"),
        ("MISMATCH", "MATCHED"),
        ("MISMATCH", "VOID"),
    ),
}
CURRENCY = "CHECK ({0} ~ '^[A-Z]{{3}}$')"


def upgrade() -> None:
    """Add the tables."""
    op.execute(
        f"""
        CREATE TABLE balance_transactions (
            id text PRIMARY KEY, type text NOT NULL, source_id text NOT NULL, payment_intent_id text NOT NULL,
            amount_minor bigint NOT NULL, fee_minor bigint NOT NULL,
            currency text NOT NULL {CURRENCY.format("currency")},
            exchange_rate numeric CHECK (exchange_rate > 0), create_time timestamptz NOT NULL,
            pull_time timestamptz NOT NULL,
            state text NOT NULL CHECK (state IN ('STORED', 'JUDGED', 'BOOKED')), explained boolean NOT NULL DEFAULT false,
            item_owner_id text NOT NULL DEFAULT '', item_id text NOT NULL DEFAULT '',
            matched_minor bigint, matched_currency text {CURRENCY.format("matched_currency")},
            counterpart text NOT NULL DEFAULT ''
                CHECK (counterpart IN ('', 'REFUNDS_IN_TRANSIT', 'DISPUTES_WITHDRAWN', 'PLATFORM_BANK', 'PROCESSOR_FEES')),
            CHECK ((state = 'STORED') = (matched_minor IS NULL)),
            CHECK ((matched_minor IS NULL) = (matched_currency IS NULL)));
        CREATE INDEX balance_transactions_open ON balance_transactions (create_time, id) WHERE state <> 'BOOKED';
        CREATE INDEX balance_transactions_item ON balance_transactions (item_id) WHERE item_id <> '';

        CREATE TABLE reconciliation_items (
            owner_id text NOT NULL, id text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('CAPTURE', 'REFUND', 'REFUND_FAILURE', 'DISPUTE', 'OTHER')), state text NOT NULL,
            break_type text NOT NULL
                CHECK (break_type IN ('', 'AMOUNT_OVER', 'AMOUNT_UNDER', 'CURRENCY', 'SPLIT', 'DATA')),
            match_mode text NOT NULL CHECK (match_mode IN ('', 'AUTO', 'MANUAL', 'FORCED')),
            payment_id text NOT NULL, source_id text NOT NULL, stripe_source_id text NOT NULL,
            expected_minor bigint, expected_currency text {CURRENCY.format("expected_currency")},
            actual_minor bigint, actual_currency text {CURRENCY.format("actual_currency")},
            due_time timestamptz NOT NULL, reason text NOT NULL DEFAULT '', resolved_by text NOT NULL DEFAULT '',
            write_off_minor bigint, write_off_currency text, write_off_booked boolean NOT NULL DEFAULT false,
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            CHECK ((expected_minor IS NULL) = (expected_currency IS NULL)),
            CHECK ((actual_minor IS NULL) = (actual_currency IS NULL)),
            CHECK ((write_off_minor IS NULL) = (write_off_currency IS NULL)),
            CHECK ((state = 'MATCHED') = (match_mode <> '')),
            CHECK (state <> 'MISMATCH' OR break_type <> ''),
            CHECK ((resolved_by <> '') = (reason <> '')),
            CHECK (state <> 'VOID' OR reason <> ''),
            CHECK (match_mode IN ('', 'AUTO') OR reason <> ''),
            CHECK (write_off_minor IS NULL OR (reason <> '' AND write_off_minor <> 0)));
        CREATE UNIQUE INDEX reconciliation_items_once ON reconciliation_items (owner_id, kind, source_id)
            WHERE source_id <> '';
        CREATE INDEX reconciliation_items_id ON reconciliation_items (id);
        CREATE INDEX reconciliation_items_stripe ON reconciliation_items (stripe_source_id, kind);
        CREATE INDEX reconciliation_items_due ON reconciliation_items (due_time) WHERE state IN ('EXPECTED', 'PARTIAL');
        CREATE INDEX reconciliation_items_breaks ON reconciliation_items (id)
            WHERE state IN ('MISMATCH', 'MISSING', 'UNEXPECTED', 'PARTIAL');
        CREATE INDEX reconciliation_items_write_offs ON reconciliation_items (id)
            WHERE write_off_minor IS NOT NULL AND NOT write_off_booked;

        CREATE TABLE reconciliation_item_versions (
            owner_id text NOT NULL, id text NOT NULL, version bigint NOT NULL, state text NOT NULL, break_type text NOT NULL,
            match_mode text NOT NULL, actual_minor bigint, reason text NOT NULL, resolved_by text NOT NULL,
            update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id, version),
            FOREIGN KEY (owner_id, id) REFERENCES reconciliation_items (owner_id, id) ON DELETE RESTRICT);
        CREATE FUNCTION archive_reconciliation_item() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = public AS $$
        BEGIN
            IF OLD.version <> NEW.version THEN
                INSERT INTO reconciliation_item_versions
                VALUES (OLD.owner_id, OLD.id, OLD.version, OLD.state, OLD.break_type, OLD.match_mode, OLD.actual_minor,
                        OLD.reason, OLD.resolved_by, OLD.update_time);
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER reconciliation_items_archive AFTER UPDATE ON reconciliation_items
        FOR EACH ROW EXECUTE FUNCTION archive_reconciliation_item();

        CREATE TABLE reconciliation_progress (
            id text PRIMARY KEY CHECK (id = 'stripe'),
            pulled_until timestamptz NOT NULL, expected_until timestamptz NOT NULL,
            baseline jsonb, stripe_balance jsonb, mirrored_balance jsonb, balance_time timestamptz);

        CREATE INDEX refunds_stripe ON refunds (stripe_refund_id) WHERE stripe_refund_id <> '';
        CREATE INDEX captures_time ON captures (capture_time);
        CREATE INDEX refunds_update ON refunds (update_time);
        CREATE INDEX suspense_items_time ON suspense_items (create_time);
        """
    )
    state_machine("reconciliation_item", "reconciliation_items", STATE_ARROWS["reconciliation_item"])
    for table in ("balance_transactions", "reconciliation_items", "reconciliation_progress"):
        grant(table, "SELECT, INSERT, UPDATE")
    grant("reconciliation_item_versions", "SELECT")


def downgrade() -> None:
    """Drop the tables: Stripe's lines can be pulled again, decisions of people cannot."""
    op.execute(
        """
        DROP INDEX refunds_stripe, captures_time, refunds_update, suspense_items_time;
        DROP TABLE reconciliation_progress, reconciliation_item_versions, reconciliation_items, balance_transactions;
        DROP FUNCTION archive_reconciliation_item();
        DELETE FROM state_arrows WHERE machine = 'reconciliation_item';
        """
    )
