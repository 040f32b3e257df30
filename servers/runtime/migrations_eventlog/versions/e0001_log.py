"""The event log's database: records, heads, groups.

Revision ID: e0001
Revises:
"""

from alembic import op

from servers.runtime.schema import role

revision = "e0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the log."""
    op.execute(
        """
        CREATE TABLE heads (topic text, partition int, next_offset bigint NOT NULL, PRIMARY KEY (topic, partition));
        CREATE TABLE records (
            topic text NOT NULL, partition int NOT NULL, record_offset bigint NOT NULL CHECK (record_offset >= 0),
            key text NOT NULL, event_id text NOT NULL, type text NOT NULL, source text NOT NULL, subject text NOT NULL,
            version bigint NOT NULL, occur_time timestamptz NOT NULL, traceparent text NOT NULL, data bytea NOT NULL,
            PRIMARY KEY (topic, partition, record_offset),
            UNIQUE (topic, partition, event_id));
        CREATE TABLE members (group_name text, member text, seen_until timestamptz NOT NULL, PRIMARY KEY (group_name, member));
        CREATE TABLE claims (
            group_name text, topic text, partition int, committed bigint NOT NULL CHECK (committed >= 0),
            generation bigint NOT NULL, owner text, lease_until timestamptz NOT NULL,
            PRIMARY KEY (group_name, topic, partition));
        """
    )
    servers = ", ".join(role(name) for name in ("identity", "payments", "wallets"))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {servers}, {role('audit')}")
    op.execute(f"GRANT SELECT, INSERT ON records TO {servers}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON heads, claims TO {servers}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON members TO {servers}")
    op.execute(f"GRANT SELECT ON records, heads, members, claims TO {role('audit')}")


def downgrade() -> None:
    """Drop the log."""
    op.execute("DROP TABLE heads, records, members, claims")
