"""`python -m servers <domain>` runs a domain's server, `python -m servers migrate` brings all databases up to date."""

from __future__ import annotations

import gc
import importlib
import sys

from servers.runtime.migrate import DOMAINS


def main() -> int:
    """Dispatch on the first argument."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name == "migrate":
        from servers.runtime import logs
        from servers.runtime.migrate import Plan, migrate
        from servers.runtime.settings import MigrateSettings

        settings = MigrateSettings.load()
        logs.configure(service="migrate", level=settings.log_level)
        passwords = {
            "identity": settings.role_password_identity.get_secret_value(),
            "payments": settings.role_password_payments.get_secret_value(),
            "wallets": settings.role_password_wallets.get_secret_value(),
            "notifications": settings.role_password_notifications.get_secret_value(),
            "audit": settings.role_password_audit.get_secret_value(),
        }
        admin_url = settings.admin_database_url.get_secret_value()
        migrate(Plan(admin_url=admin_url, passwords=passwords, prefix=settings.database_prefix))
        return 0
    if name in DOMAINS:
        # The start makes much and drops little: looking for cycles meanwhile is a sixth of its work, in vain (measured). The server
        # turns it on again when it serves.
        gc.disable()
        importlib.import_module(f"servers.{name}.main").SERVER.main()
        return 0
    print(f"usage: python -m servers {' | '.join((*DOMAINS, 'migrate'))}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
