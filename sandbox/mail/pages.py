"""The inbox: plain pages without script. A mail's HTML is shown in a frame of its own, which may open links and nothing else."""

from __future__ import annotations

import html
from typing import Final

from sandbox.mail.box import Mail

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1f2933}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.4rem .8rem .4rem 0;text-align:left;border-bottom:1px solid #e4e7eb}"
    "iframe{width:100%;height:36rem;border:1px solid #e4e7eb}pre{white-space:pre-wrap;background:#f5f7fa;padding:1rem}"
)
_FRAME: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
    "<body>{body}</body></html>"
)


def _page(title: str, body: str) -> str:
    return _FRAME.format(title=html.escape(title), style=_STYLE, body=body)


def inbox(mails: list[Mail]) -> str:
    """Return the list of mails."""
    rows = "".join(
        f"<tr><td>{html.escape(mail.header('date'))}</td><td>{html.escape(mail.header('to'))}</td>"
        f'<td><a href="/mails/{mail.name}">{html.escape(mail.header("subject"))}</a></td></tr>'
        for mail in mails
    )
    empty = "" if mails else "<p>No mail yet. Reload when something has happened.</p>"
    table = f"<table><tr><th>When</th><th>To</th><th>Subject</th></tr>{rows}</table>{empty}"
    return _page(
        "Inbox", f"<h1>Inbox</h1><p>Mails that the local platform sent. None of them left this machine.</p>{table}"
    )


def mail_page(mail: Mail) -> str:
    """Return one mail."""
    heads = "".join(
        f"<tr><th>{name}</th><td>{html.escape(mail.header(name))}</td></tr>"
        for name in ("From", "To", "Date", "Message-ID")
    )
    frame = (
        f'<iframe title="The mail" sandbox="allow-popups allow-popups-to-escape-sandbox" '
        f'srcdoc="{html.escape("<base target=_blank>" + mail.part("html"), quote=True)}"></iframe>'
    )
    body = (
        f'<p><a href="/">Inbox</a></p><h1>{html.escape(mail.header("Subject"))}</h1><table>{heads}</table>'
        f"{frame}<h2>As text</h2><pre>{html.escape(mail.part('plain'))}</pre>"
    )
    return _page(mail.header("Subject"), body)
