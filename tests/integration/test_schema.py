"""The last line of defence: what the database itself refuses, and the shape that sharding needs."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from servers.runtime.migrate import Plan, migrate
from tests.support.postgres import PASSWORD, ROLES, MakeDatabase, TestPostgres

PAYMENT = """
    INSERT INTO payments (owner_id, id, customer_id, amount_minor, currency, state, capture_method, description,
                          metadata, version, create_time, update_time)
    VALUES ('mer_1', 'pay_1', 'usr_1', {amount}, '{currency}', '{state}', 'AUTOMATIC', '', '{{}}', 1, now(), now())
"""
OWNERS = {"payments": ("merchant_id", "owner_id"), "wallets": ("bucket", "owner_id")}
HOUSE = {
    *("outbox", "outbox_archive", "inbox", "dead_letters", "idempotency_keys", "outbound_calls", "state_arrows"),
    *("balance_transactions", "reconciliation_progress", "batches", "chains", "chain_roots"),
    *("alembic_version", "alembic_version_runtime", "stripe_events", "stripe_event_cursor"),
}


async def refused(make_database: MakeDatabase, domain: str, *statements: str) -> str:
    """Run statements as the domain's server; the last one must be refused. Returns why."""
    db = await make_database(domain)
    async with db.engine.connect() as conn:
        for statement in statements[:-1]:
            await conn.execute(text(statement))
        with pytest.raises(DBAPIError) as error:
            await conn.execute(text(statements[-1]))
    return str(error.value.orig)


async def test_an_illegal_jump_by_hand_written_sql_is_refused(make_database: MakeDatabase) -> None:
    good = PAYMENT.format(amount=1, currency="USD", state="REQUIRES_PAYMENT_METHOD")
    why = await refused(
        make_database,
        "payments",
        good,
        "UPDATE payments SET state = 'SUCCEEDED', captured_minor = 1 WHERE id = 'pay_1'",
    )
    assert "a payment cannot go from REQUIRES_PAYMENT_METHOD to SUCCEEDED" in why


async def test_a_new_payment_starts_at_the_start(make_database: MakeDatabase) -> None:
    why = await refused(make_database, "payments", PAYMENT.format(amount=1, currency="USD", state="PROCESSING"))
    assert "from new to PROCESSING" in why


@pytest.mark.parametrize(("amount", "currency"), [(0, "USD"), (-1, "USD"), (1, "usd"), (1, "US")])
async def test_an_amount_or_currency_that_cannot_be_is_refused(
    make_database: MakeDatabase, amount: int, currency: str
) -> None:
    bad = PAYMENT.format(amount=amount, currency=currency, state="REQUIRES_PAYMENT_METHOD")
    assert "check constraint" in await refused(make_database, "payments", bad)


@pytest.mark.parametrize("table", ["transfers", "entries", "burnt"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET record_time = record_time", "DELETE FROM {}", "TRUNCATE {}"])
async def test_a_server_cannot_change_the_ledgers_history(make_database: MakeDatabase, table: str, verb: str) -> None:
    assert "permission denied" in await refused(make_database, "wallets", verb.format(table))


def test_not_even_the_superuser_changes_history_by_mistake(postgres: TestPostgres) -> None:
    name = postgres.copy("wallets")
    postgres.execute("INSERT INTO burnt VALUES (0, 'trf_1', now())", name)
    with pytest.raises(DBAPIError, match="append-only"):
        postgres.execute("DELETE FROM burnt", name)


def test_the_audit_can_read_everything_and_write_nothing(postgres: TestPostgres) -> None:
    engine = create_engine(
        postgres.url("payments", "audit").replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool
    )
    with engine.connect() as conn:
        conn.execute(text("SELECT count(*) FROM payments"))
        with pytest.raises(DBAPIError, match="read-only"):
            conn.execute(text("DELETE FROM payments"))
    engine.dispose()


@pytest.mark.parametrize("domain", sorted(OWNERS))
def test_every_key_starts_with_the_owner(postgres: TestPostgres, domain: str) -> None:
    engine = create_engine(
        postgres.admin(domain).replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool
    )
    with engine.connect() as conn:
        rows = conn.execute(
            text(
                """
                SELECT c.conrelid::regclass::text AS table, c.conname, a.attname AS first
                FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
                WHERE c.contype IN ('p', 'u', 'f') AND c.connamespace = 'public'::regnamespace
                """
            )
        ).all()
        sequences = (
            conn.execute(text("SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'")).scalars().all()
        )
    engine.dispose()
    keys = [row for row in rows if row.table not in HOUSE and row.conname != "stripe_customers_stripe_id_key"]
    assert len(keys) > 5
    assert [row for row in keys if row.first not in OWNERS[domain]] == []
    assert sequences == ["outbox_position_seq"]


def test_migrating_again_changes_nothing(postgres: TestPostgres) -> None:
    migrate(Plan(admin_url=postgres.admin(), passwords=dict.fromkeys(ROLES, PASSWORD)))
