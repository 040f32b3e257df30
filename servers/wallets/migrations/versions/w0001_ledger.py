"""The ledger: accounts, transfers, entries, pendings, lots.

Keys start with the bucket (0 to 63) that every ledger id carries, so that the tables can be distributed by it. Transfers, entries
and burnt ids are append-only for everybody.

Revision ID: w0001
Revises:
"""

from alembic import op

from servers.runtime.schema import append_only, domain_role, grant

revision = "w0001"
down_revision = None
branch_labels = None
depends_on = None

KINDS = "'POSTED', 'PENDING', 'POST_PENDING', 'VOID_PENDING'"


def upgrade() -> None:
    """Create the ledger's tables."""
    op.execute(
        f"""
        CREATE TABLE accounts (
            bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 63), id text NOT NULL,
            owner_id text NOT NULL, kind text NOT NULL, currency text NOT NULL CHECK (currency ~ '^[A-Z]{{3}}$'),
            debits_posted bigint NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
            credits_posted bigint NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
            debits_pending bigint NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
            credits_pending bigint NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
            version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
            create_time timestamptz NOT NULL,
            PRIMARY KEY (bucket, id), UNIQUE (bucket, owner_id, kind, currency)) WITH (fillfactor = 50);

        CREATE TABLE transfers (
            bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 63), id text NOT NULL,
            debit_account_id text NOT NULL, credit_account_id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor >= 0), currency text NOT NULL CHECK (currency ~ '^[A-Z]{{3}}$'),
            code text NOT NULL, kind text NOT NULL CHECK (kind IN ({KINDS})), pending_id text NOT NULL,
            fact_id text NOT NULL, forced boolean NOT NULL, expire_time timestamptz,
            effective_time timestamptz NOT NULL, record_time timestamptz NOT NULL, batch_id text NOT NULL,
            PRIMARY KEY (bucket, id),
            CHECK (debit_account_id <> credit_account_id),
            CHECK (amount_minor > 0 OR kind = 'VOID_PENDING'),
            CHECK ((kind = 'PENDING') = (expire_time IS NOT NULL)),
            CHECK ((kind IN ('POST_PENDING', 'VOID_PENDING')) = (pending_id <> '')));
        CREATE INDEX transfers_fact ON transfers (bucket, fact_id);

        CREATE TABLE entries (
            bucket smallint NOT NULL, account_id text NOT NULL, account_version bigint NOT NULL CHECK (account_version > 0),
            transfer_bucket smallint NOT NULL, transfer_id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
            balance_after bigint NOT NULL, available_after bigint NOT NULL, forced boolean NOT NULL,
            record_time timestamptz NOT NULL,
            PRIMARY KEY (bucket, account_id, account_version),
            FOREIGN KEY (bucket, account_id) REFERENCES accounts (bucket, id) ON DELETE RESTRICT);
        CREATE INDEX entries_transfer ON entries (bucket, transfer_id);

        CREATE TABLE pendings (
            bucket smallint NOT NULL, id text NOT NULL, remaining_minor bigint NOT NULL CHECK (remaining_minor >= 0),
            closed boolean NOT NULL, expire_time timestamptz NOT NULL,
            PRIMARY KEY (bucket, id),
            FOREIGN KEY (bucket, id) REFERENCES transfers (bucket, id) ON DELETE RESTRICT,
            CHECK (closed = (remaining_minor = 0)));
        CREATE INDEX pendings_open ON pendings (expire_time) WHERE NOT closed;

        CREATE TABLE burnt (
            bucket smallint NOT NULL, id text NOT NULL, record_time timestamptz NOT NULL, PRIMARY KEY (bucket, id));

        CREATE TABLE lots (
            bucket smallint NOT NULL, capture_id text NOT NULL, payment_id text NOT NULL, merchant_id text NOT NULL,
            currency text NOT NULL, net_minor bigint NOT NULL CHECK (net_minor >= 0),
            taken_minor bigint NOT NULL CHECK (taken_minor BETWEEN 0 AND net_minor),
            capture_time timestamptz NOT NULL,
            PRIMARY KEY (bucket, capture_id));
        """
    )
    grant("accounts", "SELECT, INSERT, UPDATE")
    grant("transfers", "SELECT, INSERT")
    grant("entries", "SELECT, INSERT")
    grant("pendings", "SELECT, INSERT, UPDATE")
    grant("burnt", "SELECT, INSERT")
    grant("lots", "SELECT, INSERT, UPDATE")
    for table in ("transfers", "entries", "burnt"):
        append_only(table)
    # With few rows the planner prefers sequential scans and hash joins, which cost the writer half of its throughput as
    # the tables grow (measured); the ledger's role always takes the keys.
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        op.execute(f"ALTER ROLE {domain_role()} SET {setting} = off")


def downgrade() -> None:
    """Drop the ledger."""
    op.execute("DROP TABLE lots, burnt, pendings, entries, transfers, accounts")
