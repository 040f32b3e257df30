"""How calls travel to Stripe: over one pool of connections, each wait bounded, nothing sent again without being asked for."""

from __future__ import annotations

import ssl
from typing import Final, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import stripe

TIMEOUT_SECONDS: Final = 6.0
CONNECT_SECONDS: Final = 3.0
"""For a free connection: until then nothing has been sent, which is certain."""
KEEPALIVE_SECONDS: Final = 4.0
"""Shorter than a server keeps an idle connection: a call on one that is being closed would have an unknown outcome."""
NEVER_OUT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""Errors of a call that had no connection yet."""
BROKEN_OFF: Final = (aiohttp.ClientError, TimeoutError)
"""What the SDK lets through as it is: the answer had begun, and did not end."""


class Redirected(Exception):
    """Somebody between Stripe and us wants the call sent elsewhere, which aiohttp would do, with its body."""


async def _refuse_redirect(
    session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestRedirectParams
) -> NoReturn:
    raise Redirected(f"{params.method} {params.url.path} was redirected")


def open_session() -> aiohttp.ClientSession:
    """Return a pool of connections. It belongs to the running loop, and whoever opened it closes it."""
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_refuse_redirect)
    trust = ssl.create_default_context(cafile=stripe.ca_bundle_path)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, keepalive_timeout=KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[watch],
    )


def client_over(session: aiohttp.ClientSession, api_base: str) -> stripe.AIOHTTPClient:
    """Return what the SDK sends with. The environment's proxy, if `api_base` is not excepted from it, is looked up once here:
    aiohttp would do it at each call."""
    there = urlsplit(api_base)
    proxy = None if proxy_bypass(there.hostname or "") else getproxies().get(there.scheme)
    return stripe.AIOHTTPClient(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
        session=session,
        proxy={"http": proxy, "https": proxy} if proxy else None,
    )
