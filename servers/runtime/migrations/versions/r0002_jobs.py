"""Background jobs: procrastinate's tables and functions, in a schema of their own. Outbound calls know whether they may be sent
again and when they were last read.

The package is pinned exactly, so that this migration makes the same schema on every machine; a newer version comes with a
migration of its own.

Revision ID: r0002
Revises: r0001
"""

from alembic import op

from servers.runtime.schema import domain_role, role

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the schema `jobs` and let the domain's server work with it."""
    from procrastinate.schema import SchemaManager

    op.execute(
        "ALTER TABLE outbound_calls ADD COLUMN resendable boolean NOT NULL DEFAULT true, ADD COLUMN read_time timestamptz"
    )
    # psycopg itself: the functions are full of percent signs, which SQLAlchemy would read as parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    run = driver.execute
    run("CREATE SCHEMA jobs; SET LOCAL search_path = jobs")
    run(SchemaManager.get_schema())
    # A NOTIFY in a business transaction takes a lock of the whole server at its commit: 21.6k -> 6.6k commits a second.
    run("DROP TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1 ON procrastinate_jobs")
    run("SET LOCAL search_path = public")
    run(
        f"""
        GRANT USAGE ON SCHEMA jobs TO {domain_role()}, {role("audit")};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO {domain_role()};
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA jobs TO {domain_role()};
        GRANT SELECT ON ALL TABLES IN SCHEMA jobs TO {role("audit")};
        """
    )


def downgrade() -> None:
    """Drop the schema with the jobs in it."""
    op.execute("DROP SCHEMA jobs CASCADE; ALTER TABLE outbound_calls DROP COLUMN resendable, DROP COLUMN read_time")
