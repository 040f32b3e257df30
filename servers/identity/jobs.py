"""Background work of the identity domain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from servers.identity import usecases
from servers.identity.usecases import Deps
from servers.runtime.jobs import Job


def jobs(deps: Deps) -> Sequence[Job]:
    """Return the kinds of job."""
    return [
        Job(name=usecases.START_RESET, run=partial(usecases.start_password_reset, deps)),
        Job(name="identity.expire_invitations", run=partial(usecases.expire_invitations, deps), cron="* * * * *"),
        Job(
            name="identity.delete_old_email_tokens",
            run=partial(usecases.delete_old_email_tokens, deps),
            cron="7 * * * *",
        ),
    ]
