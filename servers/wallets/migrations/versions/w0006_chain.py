"""Batches are chained: what each wrote is hashed to one root, and each root linked to the batch before.

What was written before has no batch in the chain, and its record time says so.

Revision ID: w0006
Revises: w0005
"""

from alembic import op

from servers.runtime.schema import append_only, grant

revision = "w0006"
down_revision = "w0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the chain and the roots of its periods."""
    op.execute(
        """
        CREATE TABLE batches (
            shard text NOT NULL, number bigint NOT NULL CHECK (number > 0), id text NOT NULL UNIQUE,
            record_time timestamptz NOT NULL, leaves int NOT NULL CHECK (leaves > 0),
            root bytea NOT NULL CHECK (length(root) = 32), key_id text NOT NULL, link bytea NOT NULL CHECK (length(link) = 32),
            PRIMARY KEY (shard, number));
        CREATE INDEX batches_time ON batches (shard, record_time);

        CREATE TABLE chains (
            shard text PRIMARY KEY, number bigint NOT NULL CHECK (number >= 0), link bytea NOT NULL CHECK (length(link) = 32),
            not_before timestamptz NOT NULL) WITH (fillfactor = 50);
        INSERT INTO chains VALUES ('shard-0', 0, decode(repeat('00', 32), 'hex'), '1970-01-01T00:00Z');

        CREATE TABLE chain_roots (
            shard text NOT NULL, start_time timestamptz NOT NULL, end_time timestamptz NOT NULL, first_number bigint NOT NULL,
            last_number bigint NOT NULL, root bytea NOT NULL CHECK (length(root) = 32), object text NOT NULL,
            publish_time timestamptz NOT NULL,
            PRIMARY KEY (shard, start_time), UNIQUE (shard, first_number),
            FOREIGN KEY (shard, first_number) REFERENCES batches (shard, number) ON DELETE RESTRICT,
            FOREIGN KEY (shard, last_number) REFERENCES batches (shard, number) ON DELETE RESTRICT,
            CHECK (first_number <= last_number), CHECK (start_time < end_time));

        -- A leaf of the chain has one field a line.
        ALTER TABLE transfers ADD CONSTRAINT transfers_one_line CHECK (strpos(fact_id || code, chr(10)) = 0);
        ALTER TABLE burnt ADD COLUMN batch_id text NOT NULL DEFAULT '';
        -- Rows of a batch stand together, and batches in the order of their ids: a few bytes a megabyte find them.
        CREATE INDEX transfers_batch ON transfers USING brin (batch_id) WITH (pages_per_range = 16, autosummarize = on);
        CREATE INDEX burnt_batch ON burnt (batch_id);
        """
    )
    for table in ("batches", "chain_roots"):
        grant(table, "SELECT, INSERT")
        append_only(table)
    grant("chains", "SELECT, UPDATE")


def downgrade() -> None:
    """Forget the chain."""
    op.execute(
        """
        DROP INDEX burnt_batch, transfers_batch;
        ALTER TABLE burnt DROP COLUMN batch_id;
        ALTER TABLE transfers DROP CONSTRAINT transfers_one_line;
        DROP TABLE chain_roots, chains, batches;
        """
    )
