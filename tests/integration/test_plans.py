"""The check on plans, which every test with a database ends with, finds what it is there for."""

from __future__ import annotations

import pytest

from tests.support import plans
from tests.support.postgres import MakeDatabase

BAD = {
    "SELECT * FROM payments WHERE description = %(d)s": "payments is scanned",
    "SELECT * FROM attempts WHERE charge_id = %(c)s": "attempts is scanned",
    "SELECT * FROM captures WHERE id = %(id)s": "is walked through",
    "UPDATE refunds SET version = version + 1 WHERE currency = %s": "refunds is scanned",
}


@pytest.mark.parametrize("text", [*BAD, "SELECT * FROM attempts WHERE charge_id = %(c)s AND charge_id <> ''"])
async def test_what_does_not_go_by_an_index_is_found(make_database: MakeDatabase, text: str) -> None:
    url = (await make_database("payments")).engine.url
    plans._seen["under test"] = {text}
    found = await plans.scans(url.set(drivername="postgresql").render_as_string(hide_password=False), "under test")
    assert len(found) == (text in BAD)
    assert not found or f"{BAD[text]}: " in found[0]
