"""The mails, one file each, newest first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Final

KEEP: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail that was taken."""

    name: str
    message: EmailMessage

    def header(self, name: str) -> str:
        """Return a header, or ""."""
        return str(self.message.get(name, ""))

    def part(self, kind: str) -> str:
        """Return the text of a part, "plain" or "html", or ""."""
        found = self.message.get_body((kind,))
        return str(found.get_content()) if found is not None else ""

    def as_json(self) -> dict[str, str]:
        """Return what tests read."""
        return {
            "name": self.name,
            "message_id": self.header("message-id"),
            "to": self.header("to"),
            "from": self.header("from"),
            "subject": self.header("subject"),
            "date": self.header("date"),
            "text": self.part("plain"),
            "html": self.part("html"),
        }


class Box:
    """The folder with the mails."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def put(self, content: bytes) -> None:
        """Keep a mail; the oldest ones beyond the limit go."""
        file = self._folder / f"{time.time_ns()}.eml"
        fresh = file.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(file)
        for old in self._files()[KEEP:]:
            old.unlink(missing_ok=True)

    def mails(self, *, limit: int = 100, to: str = "") -> list[Mail]:
        """Return the newest mails, to an address where given."""
        found: list[Mail] = []
        for file in self._files():
            mail = self._read(file)
            if to and to.lower() not in mail.header("to").lower():
                continue
            found.append(mail)
            if len(found) == limit:
                break
        return found

    def mail(self, name: str) -> Mail | None:
        """Return one mail."""
        file = self._folder / f"{name}.eml"
        return self._read(file) if name.isdigit() and file.exists() else None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.eml"), reverse=True)

    def _read(self, file: Path) -> Mail:
        message = message_from_bytes(file.read_bytes(), policy=default)
        return Mail(name=file.stem, message=message)
