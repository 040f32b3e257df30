"""Logins and refreshes on real Postgres and Redis: what an onlooker can learn, what a thief can do, what a flood does."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from servers.identity import usecases
from servers.identity.domain import LoginFailed, LoginsBusy, RefreshTokenInvalid, Tokens
from servers.identity.passwords import WAITING_MAX
from servers.identity.usecases import Deps
from tests.support.identity import identity_deps, log_in, registered, ticket
from tests.support.postgres import MakeDatabase
from tests.support.valkey import ValkeyProcess

PAIRS = 40
TRIES_OF_ACCOUNT = 8  # fewer than the limit of one account
ROUNDS = 3

Make = Callable[[int], Deps]


@pytest.fixture
async def make(make_database: MakeDatabase, valkey: ValkeyProcess, tmp_path: Path) -> AsyncIterator[Make]:
    """Return a function that makes the dependencies, for a cost of bcrypt."""
    db = await make_database("identity")
    made: list[Deps] = []

    def make(cost: int) -> Deps:
        made.append(identity_deps(db, tmp_path, valkey.url, bcrypt_cost=cost))
        return made[-1]

    yield make
    for deps in made:
        await deps.throttle.close()


async def seconds_to_refuse(deps: Deps, email: str) -> float:
    """Try a wrong password, and return how long the refusal took."""
    began = time.perf_counter()
    with pytest.raises(LoginFailed):
        await log_in(deps, email, "not the password")
    return time.perf_counter() - began


async def test_nobody_can_tell_an_unknown_address_from_a_wrong_password_by_the_time_it_takes(make: Make) -> None:
    deps = make(9)
    differences = []
    for _ in range(ROUNDS):
        users = [await registered(deps) for _ in range(PAIRS // TRIES_OF_ACCOUNT)]
        known, unknown = [], []
        for number in range(PAIRS):
            # In turns, so that whatever else the machine does slows both down.
            known.append(await seconds_to_refuse(deps, users[number % len(users)].email))
            unknown.append(await seconds_to_refuse(deps, f"{uuid.uuid4().hex}@example.com"))
        differences.append(abs(statistics.median(known) / statistics.median(unknown) - 1))
        if differences[-1] < 0.05:
            break
    # A difference of the code shows in every round, one of the machine does not.
    assert min(differences) < 0.05, differences


async def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(make: Make) -> None:
    deps = make(4)
    user = await registered(deps)
    told = []
    for email in (user.email, "nobody@example.com"):
        with pytest.raises(LoginFailed) as refused:
            await log_in(deps, email, "not the password")
        told.append((refused.value.message, refused.value.metadata, refused.value.reason))
    assert told[0] == told[1]


async def test_of_64_refreshes_at_once_one_wins_and_the_family_ends(make: Make) -> None:
    deps = make(4)
    user = await registered(deps)
    tokens = await log_in(deps, user.email)
    answers = await asyncio.gather(
        *(usecases.refresh(deps, ticket(), tokens.refresh_token) for _ in range(64)), return_exceptions=True
    )
    won = [answer for answer in answers if isinstance(answer, Tokens)]
    assert len(won) == 1
    assert sum(isinstance(answer, RefreshTokenInvalid) for answer in answers) == 63, answers
    with pytest.raises(RefreshTokenInvalid):
        await usecases.refresh(deps, ticket(), won[0].refresh_token)
    async with deps.db.read() as conn:
        states = (await conn.execute(text("SELECT state FROM sessions"))).scalars()
    assert states == ["REVOKED"]


async def test_the_theft_of_one_session_leaves_the_others(make: Make) -> None:
    deps = make(4)
    user = await registered(deps)
    stolen, other = await log_in(deps, user.email), await log_in(deps, user.email)
    await usecases.refresh(deps, ticket(), stolen.refresh_token)
    with pytest.raises(RefreshTokenInvalid):
        await usecases.refresh(deps, ticket(), stolen.refresh_token)
    assert isinstance(await usecases.refresh(deps, ticket(), other.refresh_token), Tokens)


async def test_a_flood_of_logins_is_shed_instead_of_waiting(make: Make) -> None:
    deps = make(8)
    flood = [asyncio.create_task(log_in(deps, f"{number}@example.com")) for number in range(WAITING_MAX * 3)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    shed = [answer for answer in answers if isinstance(answer, LoginsBusy)]
    assert shed
    assert {type(answer) for answer in answers} == {LoginsBusy, LoginFailed}
    assert len(answers) - len(shed) <= WAITING_MAX * 2
    user = await registered(deps)
    assert isinstance(await log_in(deps, user.email), Tokens)  # and whoever comes after it gets in
