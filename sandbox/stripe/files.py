"""Files: what a merchant uploads as evidence (https://docs.stripe.com/file-upload)."""

from __future__ import annotations

from typing import Final

from sandbox.stripe.desk import Desk
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json, StripeError, Upload, invalid

PURPOSE: Final = "dispute_evidence"
TYPES: Final = {"jpeg": "jpg", "jpg": "jpg", "pdf": "pdf", "png": "png"}
MEDIA_TYPES: Final = {"jpg": "image/jpeg", "pdf": "application/pdf", "png": "image/png"}
SIZE_MAX: Final = 5_000_000
"""Of one file of evidence (the page above, "Dispute evidence")."""


class Files:
    """POST and GET on files."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, params: Json) -> Json:
        """POST /v1/files, with a multipart body."""
        upload = params["file"]
        if not isinstance(upload, Upload):
            raise invalid("Invalid file: expected an upload (multipart/form-data).", param="file")
        if params["purpose"] != PURPOSE:
            raise StripeError(501, "api_error", f"The sandbox takes files for {PURPOSE} only.", param="purpose")
        kind = TYPES.get(upload["filename"].rpartition(".")[2].lower())
        if kind is None:
            raise invalid("Evidence is a PDF, JPEG or PNG file.", param="file")
        if not 1 <= upload["size"] <= SIZE_MAX:
            raise invalid(f"A file of evidence has from 1 to {SIZE_MAX} bytes.", param="file")
        identifier = new_id("file")
        made = {
            "id": identifier,
            "object": "file",
            "created": self._desk.clock.now(),
            "expires_at": None,
            "filename": upload["filename"],
            "links": {"object": "list", "data": [], "has_more": False, "url": f"/v1/file_links?file={identifier}"},
            "purpose": params["purpose"],
            "size": upload["size"],
            "title": None,
            "type": kind,
            "url": f"{self._desk.base_url}/v1/files/{identifier}/contents",
        }
        self._desk.store.put(made)
        self._desk.store.db.execute("INSERT INTO contents VALUES (?, ?)", (identifier, upload.content))
        self._desk.events.emit("file.created", made)
        return made

    def contents(self, identifier: str) -> tuple[Json, bytes]:
        """Return a file and what is in it, or raise Stripe's 404."""
        found = self._desk.load("file", identifier, "file")
        row = self._desk.store.db.execute("SELECT body FROM contents WHERE file = ?", (identifier,)).fetchone()
        return found, row[0]
