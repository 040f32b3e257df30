"""SMTP in, pages out. Switches let tests refuse or delay mails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox.mail.box import Box
from sandbox.mail.pages import POLICY, absent_page, inbox, mail_page
from sandbox.mail.settings import Settings

LARGEST_BYTES = 1 << 20


@dataclass
class Switches:
    """How the next mails are answered: with `reply` instead of being taken, `times` times."""

    reply: str = ""
    times: int = 0


class Handler:
    """Takes mails."""

    def __init__(self, box: Box, switches: Switches) -> None:
        self._box = box
        self._switches = switches

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take one mail, or do what a test asked for."""
        if self._switches.times > 0:
            self._switches.times -= 1
            return self._switches.reply
        content = envelope.content or b""
        self._box.put(content if isinstance(content, bytes) else content.encode())
        return "250 taken, and going nowhere"


def _page(content: str, *, status: int = 200) -> Response:
    return HTMLResponse(
        content, status_code=status, headers={"content-security-policy": POLICY, "cache-control": "no-store"}
    )


async def _inbox(request: Request) -> Response:
    return _page(inbox(request.app.state.box.mails()))


async def _mail(request: Request) -> Response:
    mail = request.app.state.box.mail(request.path_params["name"])
    return _page(mail_page(mail)) if mail is not None else _page(absent_page(), status=404)


async def _json(request: Request) -> Response:
    mails = request.app.state.box.mails(to=request.query_params.get("to", ""))
    return JSONResponse([mail.as_json() for mail in mails])


async def _switch(request: Request) -> Response:
    body: dict[str, Any] = await request.json()
    switches: Switches = request.app.state.switches
    switches.reply, switches.times = str(body["reply"]), int(body.get("times", 1))
    return JSONResponse({"ok": True})


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def make_app(settings: Settings) -> Starlette:
    """Put the sandbox together."""
    box, switches = Box(settings.data_dir), Switches()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        handler = Handler(box, switches)

        def serve() -> SMTP:
            return SMTP(handler, data_size_limit=LARGEST_BYTES, hostname="localhost", loop=loop)

        server = await loop.create_server(serve, settings.host, settings.smtp_port)
        yield
        server.close()
        await server.wait_closed()

    app = Starlette(
        routes=[
            Route("/", _inbox),
            Route("/mails/{name}", _mail),
            Route("/mails.json", _json),
            Route("/healthz", _healthz),
            Route("/_sandbox/replies", _switch, methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    app.state.box, app.state.switches = box, switches
    return app
