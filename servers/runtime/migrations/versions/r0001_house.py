"""What every domain's database has: outbox, inbox, idempotency keys, outbound calls, state machines as data.

Revision ID: r0001
Revises:
"""

from alembic import op

from servers.runtime.schema import domain_role, grant, role

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None

EVENT_COLUMNS = """
    event_id text NOT NULL,
    topic text NOT NULL,
    root_id text NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    occur_time timestamptz NOT NULL,
    traceparent text NOT NULL,
    data bytea NOT NULL
"""


def upgrade() -> None:
    """Create the house's tables, functions and grants."""
    op.execute(f"GRANT USAGE ON SCHEMA public TO {domain_role()}, {role('audit')}")
    op.execute(
        f"""
        CREATE TABLE outbox (position bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY, {EVENT_COLUMNS});
        CREATE UNIQUE INDEX outbox_event ON outbox (event_id);
        CREATE UNIQUE INDEX outbox_change ON outbox (subject, version);
        CREATE TABLE outbox_archive (position bigint PRIMARY KEY, {EVENT_COLUMNS});
        CREATE UNIQUE INDEX outbox_archive_event ON outbox_archive (event_id);
        CREATE UNIQUE INDEX outbox_archive_change ON outbox_archive (subject, version);

        CREATE TABLE inbox (
            consumer text NOT NULL, event_id text NOT NULL, receive_time timestamptz NOT NULL,
            PRIMARY KEY (consumer, event_id));

        CREATE TABLE dead_letters (
            consumer text NOT NULL, event_id text NOT NULL, topic text NOT NULL, partition int NOT NULL,
            record_offset bigint NOT NULL, type text NOT NULL, key text NOT NULL, subject text NOT NULL,
            version bigint NOT NULL, occur_time timestamptz NOT NULL, traceparent text NOT NULL, source text NOT NULL,
            data bytea NOT NULL, error text NOT NULL, dead_time timestamptz NOT NULL,
            PRIMARY KEY (consumer, event_id));

        CREATE TABLE idempotency_keys (
            tenant text NOT NULL, method text NOT NULL, key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
            fingerprint bytea NOT NULL, owner int NOT NULL, token text NOT NULL, lease_until timestamptz NOT NULL,
            recovery_point text, resource_id text,
            completed boolean NOT NULL DEFAULT false, refused boolean NOT NULL DEFAULT false, answer bytea,
            expire_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, method, key),
            CHECK (completed = (answer IS NOT NULL)));
        CREATE INDEX idempotency_keys_expire ON idempotency_keys (expire_time);

        CREATE TABLE outbound_calls (
            id text PRIMARY KEY, verb text NOT NULL, target text NOT NULL, key text NOT NULL, request_digest text NOT NULL,
            state text NOT NULL CHECK (state IN ('CREATED', 'DONE', 'NOT_SENT', 'UNKNOWN', 'PENDING', 'NEEDS_OPERATOR')),
            polls int NOT NULL CHECK (polls >= 0), next_poll_time timestamptz,
            create_time timestamptz NOT NULL, change_time timestamptz NOT NULL,
            UNIQUE (verb, key),
            CHECK ((next_poll_time IS NOT NULL) = (state IN ('CREATED', 'UNKNOWN', 'PENDING'))));
        CREATE INDEX outbound_calls_due ON outbound_calls (next_poll_time) WHERE next_poll_time IS NOT NULL;
        CREATE INDEX outbound_calls_target ON outbound_calls (target);

        CREATE TABLE state_arrows (
            machine text NOT NULL, source text NOT NULL, target text NOT NULL, PRIMARY KEY (machine, source, target));

        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END $$;

        CREATE FUNCTION enforce_state_machine() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            before text := '';
            after text := to_jsonb(NEW) ->> TG_ARGV[1];
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                before := to_jsonb(OLD) ->> TG_ARGV[1];
                IF before = after THEN
                    RETURN NEW;
                END IF;
            END IF;
            IF NOT EXISTS (SELECT 1 FROM state_arrows WHERE machine = TG_ARGV[0] AND source = before AND target = after) THEN
                RAISE EXCEPTION 'a % cannot go from % to %', TG_ARGV[0], coalesce(nullif(before, ''), 'new'), after
                    USING ERRCODE = 'check_violation', CONSTRAINT = TG_ARGV[0] || '_transition';
            END IF;
            RETURN NEW;
        END $$;
        """
    )
    grant("outbox", "SELECT, INSERT, DELETE")
    grant("outbox_archive", "SELECT, INSERT")
    grant("inbox", "SELECT, INSERT, DELETE")
    grant("dead_letters", "SELECT, INSERT, DELETE")
    grant("idempotency_keys", "SELECT, INSERT, UPDATE, DELETE")
    grant("outbound_calls", "SELECT, INSERT, UPDATE")
    grant("state_arrows", "SELECT")


def downgrade() -> None:
    """Drop what upgrade made."""
    op.execute(
        """
        DROP TABLE outbox, outbox_archive, inbox, dead_letters, idempotency_keys, outbound_calls, state_arrows;
        DROP FUNCTION refuse_change(); DROP FUNCTION enforce_state_machine();
        """
    )
