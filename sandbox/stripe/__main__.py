"""`python -m sandbox.stripe`."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from pydantic import ValidationError
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.stripe.app import make_app
from sandbox.stripe.settings import NotForProduction, load


class Protocol(H11Protocol):
    """HTTP/1.1 that lets the application drop a connection: a lost answer is a thing that tests need."""

    def connection_made(self, transport: Any) -> None:
        """Hand the transport to the requests of this connection."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})["sandbox_transport"] = transport
            await app(scope, receive, send)

        self.app = with_transport


def main() -> int:
    """Serve until told to stop."""
    try:
        settings = load()
    except NotForProduction as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except ValidationError as refusal:
        for error in refusal.errors():
            name = "_".join(str(part) for part in error["loc"]).upper()
            print(f"STRIPE_SANDBOX_{name}: {error['msg']}; docs/sandbox.md has an example", file=sys.stderr)
        return 2
    uvicorn.run(
        make_app(settings),
        host=settings.host,
        port=settings.port,
        http=Protocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
