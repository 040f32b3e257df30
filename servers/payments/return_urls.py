"""Where cardholders may be sent back to: a redirect to anywhere would lend our name to whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from servers.kernel.errors import FieldInvalid

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnUrls:
    """Decides on return URLs."""

    platform_origins: Sequence[str] = ()
    """Allowed for everybody: the platform's own pages."""
    loopback: bool = False
    """Whether local pages are allowed, also without TLS: never in production."""

    def check(self, url: str, own_origins: Sequence[str]) -> None:
        """Refuse a URL that is not of one of the origins. Raises FieldInvalid."""
        if not url:
            return
        origin = _origin(url)
        if origin is None:
            raise FieldInvalid.of("return_url", "must be a URL such as https://shop.example/done")
        scheme, host, text = origin
        if self.loopback and host in _LOOPBACK:
            return
        if scheme != "https":
            raise FieldInvalid.of("return_url", "must start with https://")
        if text not in (*own_origins, *self.platform_origins):
            raise FieldInvalid.of(
                "return_url", "must be of an allowed origin; add it to return_url_origins of /v1/payment_settings"
            )


def _origin(url: str) -> tuple[str, str, str] | None:
    """Return (scheme, host, origin), or None for what is no web address or hides where it leads."""
    if not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc:
        return None
    shown = f"[{host}]" if ":" in host else host
    return parts.scheme, host, f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def with_id(url: str, name: str, identifier: str) -> str:
    """Return the URL with one more query parameter, so that the page knows what it is about."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), (name, identifier)]
    return urlunsplit(parts._replace(query=urlencode(query)))
