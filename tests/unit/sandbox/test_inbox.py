"""The inbox page: whatever a mail holds, nothing of it runs, and the page is told apart from the mail."""

from __future__ import annotations

import html
import re
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest

from sandbox.mail.box import Mail
from sandbox.mail.pages import absent_page, inbox, mail_page

HOSTILE = "<script>alert(1)</script>\"'>"


def mail(
    subject: str = "A receipt", date: str = "Wed, 25 Nov 2026 14:00:54 +0000", body: str = "<p>Thanks</p>"
) -> Mail:
    """Return a mail."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"], message["Message-ID"] = (
        "a@x.example",
        "b@x.example",
        subject,
        "<1>",
    )
    message["Date"] = date
    message.set_content("Thanks")
    message.add_alternative(body, subtype="html")
    return Mail(name="1", message=message)


class Tags(HTMLParser):
    """Collects the tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep one."""
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each tag of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


PAGES = [inbox([]), inbox([mail(HOSTILE)]), mail_page(mail(HOSTILE, body=HOSTILE)), absent_page()]


@pytest.mark.parametrize("page", PAGES, ids=["empty", "inbox", "mail", "absent"])
def test_a_page_runs_nothing_and_reads_well_on_a_phone(page: str) -> None:
    tags = Tags(page)
    assert tags.of("script") == []
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert (tags.of("html")[0]["lang"], len(tags.of("h1")), len(tags.of("main"))) == ("en", 1, 1)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.of("meta")


def test_a_mail_is_shown_in_a_frame_that_may_open_links_and_nothing_else() -> None:
    (frame,) = Tags(mail_page(mail(body=HOSTILE))).of("iframe")
    assert frame["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert HOSTILE in str(frame["srcdoc"])
    assert frame["title"]


def test_the_list_tells_subject_recipient_and_time() -> None:
    page = inbox([mail("Tea & Sons invites you")])
    assert '<a href="/mails/1">Tea &amp; Sons invites you</a>' in page
    assert '<time datetime="2026-11-25T14:00:54+00:00">25 Nov 2026, 14:00:54 UTC</time>' in page
    assert "b@x.example" in html.unescape(re.sub(r"<[^>]+>", " ", page))


def test_a_mail_without_a_subject_or_with_a_broken_date_is_still_there() -> None:
    page = inbox([mail("", "the day after")])
    assert "(no subject)" in page
    assert "the day after" in page
