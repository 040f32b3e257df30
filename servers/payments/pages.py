"""The page that a cardholder sees who comes back from their bank and has nowhere to go on to."""

from __future__ import annotations

from typing import Final

from google.api import httpbody_pb2

_PAGE: Final = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Thank you</title></head>
<body><h1>Thank you</h1><p>You may close this page and go back to where you came from.</p></body></html>
"""


def done_page() -> httpbody_pb2.HttpBody:
    """Return the page."""
    return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=_PAGE)
