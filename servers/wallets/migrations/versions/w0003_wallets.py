"""Wallets of users, and top-ups that fill them.

Keys start with the owner. What is in a wallet is its account in the ledger, whose id follows from owner and currency.

Revision ID: w0003
Revises: w0002
"""

from typing import Final

from alembic import op

from servers.runtime.schema import Arrows, grant, state_machine

revision = "w0003"
down_revision = "w0002"
branch_labels = None
depends_on = None

STATE_ARROWS: Final[dict[str, Arrows]] = {
    "wallet": [(None, "ACTIVE")],
    "top_up": [
        (None, "PENDING"),
        ("PENDING", "PENDING"),
        ("PENDING", "REQUIRES_ACTION"),
        ("PENDING", "SUCCEEDED"),
        ("PENDING", "FAILED"),
        ("REQUIRES_ACTION", "REQUIRES_ACTION"),
        ("REQUIRES_ACTION", "PENDING"),
        ("REQUIRES_ACTION", "SUCCEEDED"),
        ("REQUIRES_ACTION", "FAILED"),
    ],
}


def upgrade() -> None:
    """Create wallets and top-ups."""
    op.execute(
        """
        CREATE TABLE wallets (
            owner_id text NOT NULL, id text NOT NULL, currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            state text NOT NULL CHECK (state IN ('ACTIVE')), version bigint NOT NULL CHECK (version > 0),
            create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id), UNIQUE (owner_id, currency));
        CREATE INDEX wallets_id ON wallets (id);

        CREATE TABLE top_ups (
            owner_id text NOT NULL, id text NOT NULL, wallet_id text NOT NULL,
            amount_minor bigint NOT NULL CHECK (amount_minor > 0), currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            payment_method_id text NOT NULL, return_url text NOT NULL,
            state text NOT NULL CHECK (state IN ('PENDING', 'REQUIRES_ACTION', 'SUCCEEDED', 'FAILED')),
            uncertain boolean NOT NULL DEFAULT false,
            payment_id text NOT NULL DEFAULT '', payment_version bigint NOT NULL DEFAULT 0 CHECK (payment_version >= 0),
            next_action bytea, decline jsonb,
            failure_reason text NOT NULL DEFAULT '' CHECK (failure_reason IN ('', 'declined', 'canceled', 'not_sent')),
            version bigint NOT NULL CHECK (version > 0), create_time timestamptz NOT NULL, update_time timestamptz NOT NULL,
            PRIMARY KEY (owner_id, id),
            FOREIGN KEY (owner_id, wallet_id) REFERENCES wallets (owner_id, id) ON DELETE RESTRICT,
            CHECK ((next_action IS NOT NULL) = (state = 'REQUIRES_ACTION')),
            CHECK ((failure_reason <> '') = (state = 'FAILED')),
            CHECK (decline IS NULL OR failure_reason = 'declined'),
            CHECK (state <> 'SUCCEEDED' OR payment_id <> ''),
            CHECK (NOT uncertain OR state IN ('PENDING', 'REQUIRES_ACTION')));
        CREATE INDEX top_ups_id ON top_ups (id);
        CREATE INDEX top_ups_wallet ON top_ups (owner_id, wallet_id, id);
        CREATE INDEX top_ups_open ON top_ups (owner_id, wallet_id) INCLUDE (amount_minor)
            WHERE state IN ('PENDING', 'REQUIRES_ACTION');
        """
    )
    for machine, arrows in STATE_ARROWS.items():
        grant(f"{machine}s", "SELECT, INSERT, UPDATE")
        state_machine(machine, f"{machine}s", arrows)


def downgrade() -> None:
    """Drop wallets and top-ups."""
    op.execute("DROP TABLE top_ups, wallets; DELETE FROM state_arrows WHERE machine IN ('wallet', 'top_up')")
