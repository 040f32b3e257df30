"""Where a cardholder goes who comes back from their bank."""

from __future__ import annotations

from typing import Any

from google.api import httpbody_pb2

from servers.payments.pages import done_page
from servers.payments.return_urls import with_id


async def send_on(context: Any, url: str, name: str, identifier: str) -> httpbody_pb2.HttpBody:
    """Answer 303 to a URL that was checked when it was given, or with a page where there is none. The edge turns the header
    `x-http-status` into the status."""
    if not url:
        return done_page()
    await context.send_initial_metadata((("x-http-status", "303"), ("location", with_id(url, name, identifier))))
    return httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=b"")
