"""Passwords: any script and length, every character counts, and a flood is shed."""

from __future__ import annotations

import asyncio
import base64
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servers.identity.domain import LoginsBusy
from servers.identity.passwords import WAITING_MAX, Passwords

LOWEST_COST = 4
PEPPER = base64.b64encode(b"p" * 32).decode()
PASSWORDS = Passwords(PEPPER, cost=LOWEST_COST)
LONG = st.text(st.characters(exclude_categories=("Cs",)), min_size=64, max_size=256)


@settings(max_examples=40, deadline=None)
@given(LONG)
@example("\U0001f40e" * 64)
@example("\u5bc6\u7801" * 128)
@example("e\u0301" * 64)
async def test_a_long_password_of_any_script_matches_itself_and_nothing_longer(password: str) -> None:
    stored = await PASSWORDS.hash(password)
    assert await PASSWORDS.matches(password, stored)
    assert not await PASSWORDS.matches(password + "x", stored)


@pytest.mark.parametrize("filler", ["x" * 72, "\U0001f40e" * 18, "\u00e9" * 36, "x" * 255])
async def test_what_differs_after_byte_72_differs(filler: str) -> None:
    assert len(filler.encode()) >= 72
    stored = await PASSWORDS.hash(filler + "a")
    assert await PASSWORDS.matches(filler + "a", stored)
    assert not await PASSWORDS.matches(filler + "b", stored)
    assert not await PASSWORDS.matches(filler, stored)


async def test_what_differs_after_nul_differs() -> None:
    stored = await PASSWORDS.hash("before\0after")
    assert not await PASSWORDS.matches("before\0other", stored)


@pytest.mark.parametrize("word", ["pässwörd ñandú", "\u1e9b\u0323 \u212b", "\ud55c\uae00 \u1112\u1161\u11ab"])
async def test_two_spellings_of_the_same_characters_are_one_password(word: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)
    assert composed != decomposed
    stored = await PASSWORDS.hash(composed)
    assert await PASSWORDS.matches(decomposed, stored)
    # Compatibility forms stay different: folding those would make passwords weaker.
    compatible = unicodedata.normalize("NFKC", word)
    assert await PASSWORDS.matches(compatible, stored) == (compatible == composed)


async def test_a_stolen_table_is_worth_nothing_without_the_pepper() -> None:
    stored = await PASSWORDS.hash("four words of nothing")
    other = Passwords(base64.b64encode(b"q" * 32).decode(), cost=LOWEST_COST)
    assert not await other.matches("four words of nothing", stored)


async def test_nobody_has_no_password() -> None:
    assert not await PASSWORDS.matches("four words of nothing", None)


async def test_a_flood_is_shed_at_once_and_the_pool_works_on() -> None:
    passwords = Passwords(PEPPER, cost=LOWEST_COST)
    tries = [passwords.matches("x", None) for _ in range(WAITING_MAX + 40)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert answers[:WAITING_MAX] == [False] * WAITING_MAX
    assert all(isinstance(answer, LoginsBusy) for answer in answers[WAITING_MAX:])
    assert await passwords.matches("x", await passwords.hash("x"))
