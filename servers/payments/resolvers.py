"""What the janitor does with a call of each verb: read, then apply what is found."""

from __future__ import annotations

from functools import partial

from servers.kernel.errors import Refusal
from servers.payments import store
from servers.payments.usecases import (
    ATTACH,
    CONFIRM,
    REFUND_CALL,
    Deps,
    attach_method,
    drive_attempt,
    drive_refund,
    give_up_attempt,
)
from servers.runtime.janitor import Resolver
from servers.runtime.outbound import OutboundCall


def resolvers(deps: Deps) -> dict[str, Resolver]:
    """Return the resolver of each verb. A refusal means that nothing could be learnt now: the next look will try again."""

    async def attach(call: OutboundCall) -> None:
        async with deps.db.read() as conn:
            method = await store.method_by_id(conn, call.target)
        try:
            await attach_method(deps, method)
        except Refusal:
            return

    async def confirm(call: OutboundCall) -> None:
        try:
            await drive_attempt(deps, call.target)
        except Refusal:
            return

    async def refund(call: OutboundCall) -> None:
        try:
            await drive_refund(deps, call.target)
        except Refusal:
            return

    return {
        ATTACH: Resolver(look=attach),
        CONFIRM: Resolver(look=confirm, give_up=partial(give_up_attempt, deps)),
        REFUND_CALL: Resolver(look=refund),
    }
