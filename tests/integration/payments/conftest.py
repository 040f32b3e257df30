"""One process of the payments server, with fakes at its two ports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_ledger import FakeLedger
from tests.support.fake_stripe import FakeStripe
from tests.support.payment_desk import WALLET, Desk, TickingClock, desk_of
from tests.support.postgres import TestPostgres, opened
from tests.support.valkey import ValkeyProcess


@pytest.fixture
async def desk(postgres: TestPostgres, valkey: ValkeyProcess) -> AsyncIterator[Desk]:
    """Return a desk on a database of its own."""
    clock = TickingClock()
    db = await opened(postgres.url(postgres.copy("payments"), "payments"), "payments", clock)
    yield desk_of(db, FakeStripe(clock), FakeLedger(clock, WALLET, balance=5000), valkey.url)
    await db.dispose()
