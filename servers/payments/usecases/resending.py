"""Sending again what Stripe says it never carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from servers.payments.usecases.deps import Deps
from servers.runtime.outbound import RESEND_WITHIN, NotSent, Outcome, Unknown

T = TypeVar("T")


async def send_again(deps: Deps, target: str, send: Callable[[], Awaitable[Outcome[T]]]) -> Outcome[T]:
    """Send the open call for `target` once more, under its own key, while that is safe: Stripe may forget keys after a day, and
    replays a 500 that it answered. One that does not arrive now is as unknown as before."""
    async with deps.db.uow() as uow:
        call = await uow.outbound.open_for(target)
    if call is None or not call.resendable or deps.clock.now() - call.create_time >= RESEND_WITHIN:
        return Unknown("not carried out, and too late to send again")
    again = await send()
    return Unknown(again.reason) if isinstance(again, NotSent) else again
