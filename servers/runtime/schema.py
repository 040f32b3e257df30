"""What migrations of all domains say in one line: state machines, append-only tables, grants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from alembic import op
from sqlalchemy import text

Arrows = Sequence[tuple[str | None, str]]
AUDIT: Final = "audit"


def role(name: str) -> str:
    """Return the role of a domain, with the prefix that the migration runs with."""
    prefix: str = op.get_context().config.attributes.get("prefix", "")  # type: ignore[union-attr]  # env.py always sets it
    return f"{prefix}paymesh_{name}"


def domain_role() -> str:
    """Return the role that the server of this database logs in as."""
    return role(str(op.get_context().config.attributes["domain"]))  # type: ignore[union-attr]  # as above


def grant(table: str, privileges: str) -> None:
    """Let the domain's server do `privileges` on `table`, and the audit read it."""
    op.execute(f"GRANT {privileges} ON {table} TO {domain_role()}")
    op.execute(f"GRANT SELECT ON {table} TO {role(AUDIT)}")


def append_only(table: str) -> None:
    """Refuse every UPDATE, DELETE and TRUNCATE of `table`, whoever asks."""
    op.execute(
        f"""
        CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
        CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        """
    )


def state_machine(machine: str, table: str, arrows: Arrows, *, column: str = "state") -> None:
    """Refuse every change of `table.column` that `arrows` does not list, hand-written SQL included.

    The rows are data in `state_arrows`, so that a later migration widens a machine by calling this again.
    """
    op.get_bind().execute(text("DELETE FROM state_arrows WHERE machine = :machine"), {"machine": machine})
    op.get_bind().execute(
        text("INSERT INTO state_arrows (machine, source, target) VALUES (:machine, :source, :target)"),
        [{"machine": machine, "source": source or "", "target": target} for source, target in arrows],
    )
    op.execute(
        f"""
        DROP TRIGGER IF EXISTS {table}_{column}_machine ON {table};
        CREATE TRIGGER {table}_{column}_machine BEFORE INSERT OR UPDATE OF {column} ON {table}
        FOR EACH ROW EXECUTE FUNCTION enforce_state_machine('{machine}', '{column}');
        """
    )
