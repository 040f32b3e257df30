"""The inbox: plain pages without script. A mail's HTML is shown in a frame of its own, which may open links and nothing else."""

from __future__ import annotations

import html
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from sandbox.mail.box import Mail

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page, and with it of the frame: a mail loads nothing from elsewhere."""
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#52606d;--line:#d9dfe5;--paper:#fff;--link:#0b4fd6}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#a3b1bf;--line:#3a4653;--paper:#151b21;--link:#8ab4ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 3rem;font:1rem/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1rem;margin:2rem 0 .5rem}
p{margin:.5rem 0}
a{color:var(--link)}
a:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.soft,time,.to{color:var(--soft)}
time{white-space:nowrap}
.mails{list-style:none;margin:1.5rem 0 0;padding:0;border-top:1px solid var(--line)}
.mails li{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr) auto;gap:0 1.5rem;padding:.75rem 0;
border-bottom:1px solid var(--line)}
dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:.25rem 1rem;margin:1rem 0}
dt{color:var(--soft)}
dd{margin:0}
iframe{display:block;width:100%;height:34rem;border:1px solid var(--line);border-radius:.25rem;background:#fff;
color-scheme:light}
pre{margin:.5rem 0;padding:1rem;border:1px solid var(--line);border-radius:.25rem;font-size:.875rem;white-space:pre-wrap}
@media(max-width:40rem){.mails li{grid-template-columns:1fr}}
"""
_FRAME: Final = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{title}</title><style>{style}</style></head><body>{body}</body></html>"
)
_LINKS_OPEN_OUTSIDE: Final = "<!doctype html><base target=_blank>"


def _page(title: str, body: str) -> str:
    return _FRAME.format(title=html.escape(title), style=_STYLE, body=body)


def _time(mail: Mail) -> str:
    """Return when a mail was written, for people and for machines."""
    written = mail.header("date")
    try:
        instant = parsedate_to_datetime(written).astimezone(UTC)
    except ValueError:
        return f"<span class=soft>{html.escape(written) or 'no date'}</span>"
    return f'<time datetime="{instant.isoformat()}">{instant:%-d %b %Y, %H:%M:%S} UTC</time>'


def _subject(mail: Mail) -> str:
    return mail.header("subject") or "(no subject)"


def inbox(mails: list[Mail]) -> str:
    """Return the list of mails."""
    rows = "".join(
        f'<li><a href="/mails/{mail.name}">{html.escape(_subject(mail))}</a>'
        f'<span class="to">{html.escape(mail.header("to"))}</span>{_time(mail)}</li>'
        for mail in mails
    )
    shown = f'<ol class="mails">{rows}</ol>' if mails else "<p>No mail yet. Reload when something has happened.</p>"
    about = "Mails that the local platform sent, newest first. None of them left this machine."
    return _page("Inbox", f'<main><h1>Inbox</h1><p class="soft">{about}</p>{shown}</main>')


def absent_page() -> str:
    """Return what is shown where a mail is not, or not any more."""
    return _page(
        "No such mail", '<main><h1>No such mail</h1><p>Only the newest are kept. <a href="/">Inbox</a></p></main>'
    )


def mail_page(mail: Mail) -> str:
    """Return one mail."""
    subject = html.escape(_subject(mail))
    heads = "".join(f"<dt>{name}</dt><dd>{html.escape(mail.header(name))}</dd>" for name in ("From", "To"))
    identifier = f"<dt>Message-ID</dt><dd>{html.escape(mail.header('message-id'))}</dd>"
    frame = (
        '<iframe title="The mail as its reader sees it" sandbox="allow-popups allow-popups-to-escape-sandbox" '
        f'srcdoc="{html.escape(_LINKS_OPEN_OUTSIDE + mail.part("html"), quote=True)}"></iframe>'
        if mail.part("html")
        else ""
    )
    body = (
        f'<nav><a href="/">← Inbox</a></nav><main><h1>{subject}</h1>'
        f"<dl>{heads}<dt>Written</dt><dd>{_time(mail)}</dd>{identifier}</dl>"
        f"{frame}<h2>As text</h2><pre>{html.escape(mail.part('plain').strip())}</pre></main>"
    )
    return _page(_subject(mail), body)
