"""What the janitor does with a call of each verb: read, then apply what is found."""

from __future__ import annotations

from functools import partial

from servers.kernel.errors import Refusal
from servers.payments import store
from servers.payments.suspense import REFUND_CALL
from servers.payments.usecases import (
    ACCEPT,
    ATTACH,
    CANCEL,
    CANCEL_REFUND,
    CAPTURE,
    CONFIRM,
    DETACH,
    SET_UP,
    WALLET_CONFIRM,
    WALLET_OPERATION,
    Deps,
    attach_method,
    drive_accept,
    drive_attempt,
    drive_operation,
    drive_refund,
    drive_refund_cancel,
    drive_setup,
    finish_detach,
    give_up_attempt,
    give_up_operation,
    refund_of_cancel,
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

    async def refund_cancel(call: OutboundCall) -> None:
        try:
            await drive_refund_cancel(deps, refund_of_cancel(call.target))
        except Refusal:
            return

    async def operation(call: OutboundCall) -> None:
        try:
            await drive_operation(deps, call.target)
        except Refusal:
            return

    async def detach(call: OutboundCall) -> None:
        async with deps.db.read() as conn:
            method = await store.method_by_id(conn, call.target)
        await finish_detach(deps, method)

    async def set_up(call: OutboundCall) -> None:
        try:
            await drive_setup(deps, call.target)
        except Refusal:
            return

    async def accept(call: OutboundCall) -> None:
        try:
            await drive_accept(deps, call.target)
        except Refusal:
            return

    undecided = partial(give_up_operation, deps)
    return {
        ATTACH: Resolver(look=attach),
        DETACH: Resolver(look=detach),
        CONFIRM: Resolver(look=confirm, give_up=partial(give_up_attempt, deps)),
        CAPTURE: Resolver(look=operation, give_up=undecided),
        CANCEL: Resolver(look=operation, give_up=undecided),
        REFUND_CALL: Resolver(look=refund),
        ACCEPT: Resolver(look=accept),
        CANCEL_REFUND: Resolver(look=refund_cancel),
        SET_UP: Resolver(look=set_up),
        WALLET_CONFIRM: Resolver(look=confirm, give_up=partial(give_up_attempt, deps)),
        WALLET_OPERATION: Resolver(look=operation, give_up=undecided),
    }
