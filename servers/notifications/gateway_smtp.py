"""The only place that knows SMTP: a letter becomes a message, and a mail server takes it or says why not."""

from __future__ import annotations

import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import aiosmtplib
import jinja2

from servers.kernel.clock import Clock
from servers.notifications.letters import Letter
from servers.notifications.settings import NotificationsSettings

TIMEOUT_SECONDS: Final = 10.0
TEMPLATES: Final = Path(__file__).parent / "templates"


class MailRefused(Exception):
    """The mail server will never take this mail (a 5xx reply, RFC 5321 section 4.2.1)."""


class MailNotSent(Exception):
    """The mail server could not take it now, or did not answer; trying again may help."""


class Gateway(Protocol):
    """What sends mails."""

    async def send(self, letter: Letter, *, email_id: str, address: str, name: str) -> None:
        """Send. Raises MailRefused, MailNotSent."""


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["mjml"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class SmtpGateway:
    """Sends through one mail server."""

    def __init__(self, settings: NotificationsSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def message(self, letter: Letter, *, email_id: str, address: str, name: str) -> EmailMessage:
        """Return a letter as a message of text and HTML. Its Message-ID is the mail's: a mail server that gets it twice, because
        our process died in between, can tell (RFC 5322 section 3.6.4)."""
        import mrml  # a Rust module: loaded when the first mail is written

        settings = self._settings
        values = {"letter": letter, "sender": settings.sender_name}
        message = EmailMessage()
        message["Subject"] = letter.subject
        message["From"] = Address(settings.sender_name, addr_spec=settings.sender_address)
        message["To"] = Address(name, addr_spec=address)
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{email_id}@{settings.sender_address.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_templates().get_template("letter.txt").render(values))
        html = mrml.to_html(_templates().get_template("letter.mjml").render(values)).content
        message.add_alternative(html, subtype="html")
        return message

    async def send(self, letter: Letter, *, email_id: str, address: str, name: str) -> None:
        """Send. Raises MailRefused, MailNotSent."""
        settings = self._settings
        try:
            message = self.message(letter, email_id=email_id, address=address, name=name)
        except ValueError as error:
            raise MailRefused(f"not an address: {type(error).__name__}") from error
        password = settings.smtp_password.get_secret_value() if settings.smtp_password is not None else None
        try:
            await aiosmtplib.send(
                message,
                hostname=settings.smtp_host,
                port=settings.smtp_port,
                username=settings.smtp_username or None,
                password=password,
                use_tls=settings.smtp_tls == "implicit",
                start_tls=settings.smtp_tls == "starttls",
                tls_context=ssl.create_default_context() if settings.smtp_tls != "none" else None,
                timeout=TIMEOUT_SECONDS,
            )
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPResponseException) as error:
            codes = (
                [reply.code for reply in error.recipients]
                if isinstance(error, aiosmtplib.SMTPRecipientsRefused)
                else [error.code]
            )
            kind = MailRefused if all(code >= 500 for code in codes) else MailNotSent
            raise kind(f"the mail server answered {codes}") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailNotSent(type(error).__name__) from error
