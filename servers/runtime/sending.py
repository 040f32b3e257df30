"""Sending a recorded call: its record says so before it goes out, so that whoever finds it knows that it may have arrived.

What is known after a sending, `OutboundStore.known` says, in the transaction that writes it down: somebody else may have sent the
same call, in this process or in one that died.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from servers.runtime.db import Database
from servers.runtime.outbound import RESEND_WITHIN, Outcome, Unknown

T = TypeVar("T")
LEARNT: Final = Unknown("its outcome was learnt meanwhile")
"""The call is settled: nothing is to be sent, and what became of it stands in the resource."""


async def send(db: Database, target: str, execute: Callable[[], Awaitable[Outcome[T]]]) -> Outcome[T]:
    """Send the open call for `target`."""
    async with db.uow() as uow:
        if not await uow.outbound.note_send(target):
            return LEARNT
    return await execute()


async def send_again(db: Database, target: str, execute: Callable[[], Awaitable[Outcome[T]]]) -> Outcome[T]:
    """Send what the provider says it never carried out once more, under its own key, while that is safe: it may forget keys after
    a day, and replays a 500 that it answered."""
    async with db.uow() as uow:
        call = await uow.outbound.open_for(target)
        if call is None or not call.resendable or db.clock.now() - call.create_time >= RESEND_WITHIN:
            return Unknown("not carried out, and too late to send again")
        if not await uow.outbound.note_send(target):
            return LEARNT
    return await execute()
