"""`python -m servers migrate`: roles, databases and schemas, by one process, before any server starts.

For each domain the runtime's migrations run first, with a version table of their own, then the domain's. An advisory lock lets
two of these processes wait for each other. Safe to repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

SERVERS: Final = Path(__file__).resolve().parent.parent
RUNTIME: Final = SERVERS / "runtime"
DOMAINS: Final = ("identity", "payments", "wallets", "notifications")
EVENTLOG: Final = "eventlog"
LOCK_CLASS: Final = 7703

_log = structlog.get_logger("migrate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where to migrate, and the passwords of the roles that are made."""

    admin_url: str
    passwords: Mapping[str, str]
    prefix: str = ""


def migrate(plan: Plan) -> None:
    """Bring every role, database and schema up to date."""
    names = [f"{plan.prefix}{name}" for name in (*DOMAINS, EVENTLOG)]
    admin = create_engine(_psycopg(plan.admin_url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as conn:
        conn.execute(text("SELECT pg_advisory_lock(:class, 0)"), {"class": LOCK_CLASS})
        for name in (*DOMAINS, "audit"):
            _role(conn, f"{plan.prefix}paymesh_{name}", plan.passwords[name])
        for database in names:
            _database(conn, database)
            for name in _who_connects(database.removeprefix(plan.prefix)):
                conn.execute(text(f'GRANT CONNECT ON DATABASE "{database}" TO {plan.prefix}paymesh_{name}'))
        # One after the other: Alembic's environment is global to the process.
        for name in (*DOMAINS, EVENTLOG):
            _schema(plan, name)
    _log.info("databases.migrated", databases=names)


def _who_connects(database: str) -> tuple[str, ...]:
    return (*DOMAINS, "audit") if database == EVENTLOG else (database, "audit")


def _role(conn: Connection, name: str, password: str) -> None:
    known = conn.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name})
    verb = "ALTER" if known else "CREATE"
    # DDL takes no parameters: the password is quoted by the server itself.
    quoted = conn.scalar(text("SELECT quote_literal(:password)"), {"password": password})
    conn.exec_driver_sql(f"{verb} ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {quoted}")
    if name.endswith("_audit"):
        conn.exec_driver_sql(f"ALTER ROLE {name} SET default_transaction_read_only = on")


def _database(conn: Connection, name: str) -> None:
    if not conn.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}):
        conn.exec_driver_sql(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")
        conn.exec_driver_sql(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')


def _schema(plan: Plan, name: str) -> None:
    url = make_url(_psycopg(plan.admin_url)).set(database=f"{plan.prefix}{name}")
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"options": "-c lock_timeout=4000 -c statement_timeout=5000"}
    )
    if name == EVENTLOG:
        steps = [(RUNTIME / "migrations_eventlog", "alembic_version")]
    else:
        steps = [
            (RUNTIME / "migrations", "alembic_version_runtime"),
            (SERVERS / name / "migrations", "alembic_version"),
        ]
    with engine.connect() as conn:
        for folder, table in steps:
            upgrade(conn, folder, version_table=table, domain=name, prefix=plan.prefix)


def upgrade(conn: Connection, folder: Path, *, version_table: str, domain: str, prefix: str) -> None:
    """Run the migrations below `folder` on one connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(RUNTIME / "migrations"))
    config.set_main_option("version_locations", str(folder / "versions"))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=conn, version_table=version_table, domain=domain, prefix=prefix)
    command.upgrade(config, "head")
    conn.commit()


def _psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
