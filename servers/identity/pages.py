"""The page behind the link of a mail. No script, no style from elsewhere: the edge's Content-Security-Policy forbids both."""

from __future__ import annotations

import html
from typing import Final

from google.api import httpbody_pb2

_FRAME: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><h1>{title}</h1>{body}</body></html>
"""
ASK: Final = (
    "Verify your email address",
    '<p>Press the button, and the address is yours here.</p><form method="get" action="/v1/users:open_email_link">'
    '<input type="hidden" name="token" value="{token}"><input type="hidden" name="confirm" value="true">'
    "<button>Verify</button></form>",
)
VERIFIED: Final = ("Your email address is verified", "<p>You may close this page.</p>")
REFUSED: Final = ("That did not work", "<p>{message}</p>")


def page(content: tuple[str, str], **values: str) -> httpbody_pb2.HttpBody:
    """Return a page with values put in, escaped."""
    title, body = content
    escaped = {name: html.escape(value, quote=True) for name, value in values.items()}
    text = _FRAME.format(title=html.escape(title), body=body.format(**escaped))
    return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=text.encode())
