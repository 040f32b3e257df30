"""The notifications server reads and writes the log, too.

Revision ID: e0002
Revises: e0001
"""

from alembic import op

from servers.runtime.schema import role

revision = "e0002"
down_revision = "e0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let it in."""
    server = role("notifications")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {server}")
    op.execute(f"GRANT SELECT, INSERT ON records TO {server}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON heads, claims TO {server}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON members TO {server}")


def downgrade() -> None:
    """Keep it out."""
    op.execute(f"REVOKE ALL ON records, heads, claims, members FROM {role('notifications')}")
