"""What the janitor does with a top-up without an outcome: have payments say how it stands, and cancel what was never sent."""

from __future__ import annotations

from servers.kernel.errors import Refusal
from servers.runtime.janitor import Resolver
from servers.runtime.outbound import OutboundCall
from servers.wallets import wallet_store
from servers.wallets.usecases import CHARGE, Deps, drive_top_up


def resolvers(deps: Deps) -> dict[str, Resolver]:
    """Return the resolver of each verb. A refusal means that nothing could be learnt now: the next look will try again. After the
    last one the janitor leaves the call to a person, in the log and in the call's own record."""

    async def charge(call: OutboundCall) -> None:
        async with deps.db.read() as conn:
            top_up = await wallet_store.top_up_by_id(conn, deps.db.sealer, call.target)
        try:
            await drive_top_up(deps, top_up.owner_id, top_up.id, stop=True)
        except Refusal:
            return

    return {CHARGE: Resolver(look=charge)}
