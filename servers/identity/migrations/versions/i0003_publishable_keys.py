"""Publishable API keys: the kind of a key, and the key itself where it is no secret.

Revision ID: i0003
Revises: i0002
"""

from alembic import op

revision = "i0003"
down_revision = "i0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the table of keys. The default stays: the release before this one goes on to insert secret keys."""
    op.execute(
        """
        ALTER TABLE api_keys ADD COLUMN kind text NOT NULL DEFAULT 'SECRET' CHECK (kind IN ('SECRET', 'PUBLISHABLE')),
                             ADD COLUMN publishable_key text,
                             ADD CONSTRAINT api_keys_only_publishable_shown
                                 CHECK ((kind = 'PUBLISHABLE') = (publishable_key IS NOT NULL));
        """
    )


def downgrade() -> None:
    """Bring back what was. Publishable keys would turn into secret ones that carry more than they should, so they end."""
    op.execute(
        """
        DELETE FROM api_keys WHERE kind = 'PUBLISHABLE';
        ALTER TABLE api_keys DROP COLUMN kind, DROP COLUMN publishable_key;
        """
    )
