"""`python -m sandbox.mail` serves until it is stopped."""

from __future__ import annotations

import os
import sys

import uvicorn

from sandbox.mail.app import make_app
from sandbox.mail.settings import Settings


def main() -> int:
    """Serve. Returns the exit code."""
    if os.environ.get("PAYMESH_PROFILE") == "production":
        print(
            "the mail sandbox does not run in production: set PAYMESH_SMTP_HOST to a real mail server", file=sys.stderr
        )
        return 2
    settings = Settings()
    uvicorn.run(make_app(settings), host=settings.host, port=settings.inbox_port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
