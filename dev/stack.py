"""The parts of the local stack: what each runs, needs, and knows."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from dev import edge, pki, postgres, probes
from dev.paths import DOMAINS, PASSED_ON, PREFIX, Ports, StackRefused
from dev.postgres import EmbeddedPostgres
from dev.secrets import SecretFolder
from dev.supervisor import Part
from dev.valkey import EmbeddedValkey

AUDIT: Final = "audit"
EVENTLOG: Final = "eventlog"
RENEW_SECONDS: Final = 600.0
REVIEW_ABOVE: Final = {"CHF": 100_000}
"""Above 1,000.00 francs a person looks first: in one currency only, so that a local platform lets all others pay what they like."""
FEE_PLAN: Final = {"version": "2026-11", "basis_points": 150, "fixed_minor": {"USD": 25, "EUR": 25}}
# How a process reaches Stripe itself from behind a proxy; nothing else here leaves the machine.
WAY_OUT: Final = (
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The local stack in one folder."""

    folder: Path
    ports: Ports
    postgres: EmbeddedPostgres | None
    valkey: EmbeddedValkey | None
    secrets: SecretFolder
    mesh: pki.Authority
    public: pki.Authority

    @property
    def edge_url(self) -> str:
        """Return the address of the edge."""
        return f"https://localhost:{self.ports.edge}"

    @property
    def ca_file(self) -> Path:
        """Return the certificate that vouches for the edge, outside of the private folder: it is for everybody."""
        return self.folder / "edge-ca.crt"

    def mesh_dir(self, name: str) -> Path:
        """Return the folder with a mesh certificate."""
        return self.folder / "tls" / name

    @property
    def objects_dir(self) -> Path:
        """Return the folder that stands in for object storage."""
        return self.folder / "objects"

    def admin_url(self) -> str:
        """Return the address of the database server for migrations."""
        return os.environ["DATABASE_URL"] if self.postgres is None else self.postgres.url()

    def redis_url(self) -> str:
        """Return the address of Redis."""
        return os.environ["REDIS_URL"] if self.valkey is None else self.valkey.url()

    def database_address(self) -> str:
        """Return host and port of the database server."""
        return urlsplit(self.admin_url()).netloc.rpartition("@")[2]

    def database_url(self, database: str, role: str) -> str:
        """Return the address under which a role reaches a database, with the options of the administrator's (`?sslmode=…`)."""
        password = quote(self.secrets.password(f"role_{role}"), safe="")
        options = urlsplit(self.admin_url()).query
        address = f"postgresql://paymesh_{role}:{password}@{self.database_address()}/{database}"
        return f"{address}?{options}" if options else address

    def secret_files(self) -> dict[str, str]:
        """Return, by server, the file that holds the address of its database."""
        return {name: str(self.folder / "private" / name / "paymesh_database_url") for name in DOMAINS}


def make_stack(folder: Path, ports: Ports) -> Stack:
    """Prepare folders, authorities, certificates and secrets. Raises StackRefused."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("private", "tls", "stripe-sandbox", "mail"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o700)
    for name in ("crash", "run", "objects"):
        (folder / name).mkdir(exist_ok=True)
    private = folder / "private"
    secrets = SecretFolder(private / "made")
    embedded = valkey = None
    if "DATABASE_URL" not in os.environ:
        embedded = EmbeddedPostgres(folder / "postgres", port=ports.postgres, password=secrets.password("postgres"))
    elif not urlsplit(os.environ["DATABASE_URL"]).hostname:
        raise StackRefused(
            "DATABASE_URL names no host: it must look like postgresql://user:password@host:port/postgres"
        )
    if "REDIS_URL" not in os.environ:
        valkey = EmbeddedValkey(folder / "valkey", port=ports.redis, password=secrets.password("redis"))
    if "_live_" in os.environ.get("STRIPE_API_KEY", ""):
        raise StackRefused("STRIPE_API_KEY is a live key: the local stack moves no real money, give it a test key")
    stack = Stack(
        folder=folder,
        ports=ports,
        postgres=embedded,
        valkey=valkey,
        secrets=secrets,
        mesh=pki.Authority(private / "ca", "mesh"),
        public=pki.Authority(private / "ca", "edge"),
    )
    stack.ca_file.write_bytes(stack.public.certificate_file.read_bytes())
    renew(stack)
    pki.signing_key(private / "jwt")
    return stack


def renew(stack: Stack) -> None:
    """Issue every leaf that is missing or past half of its life, and tell Envoy by renaming its secret files."""
    renewed = False
    for name in (*DOMAINS, "edge", "dev", "operator"):
        if pki.due(stack.mesh_dir(name)):
            stack.mesh.issue(stack.mesh_dir(name), names=pki.mesh_names(name), common_name=name)
            renewed = True
    if pki.due(stack.mesh_dir("public")):
        stack.public.issue(stack.mesh_dir("public"), names=pki.edge_names(), common_name="localhost")
        renewed = True
    run = stack.folder / "run"
    if renewed or not (run / "sds-mesh.yaml").exists():
        run.mkdir(exist_ok=True)
        pki.write_private(run / "sds-edge.yaml", edge.sds("edge", stack.mesh_dir("public")).encode())
        pki.write_private(run / "sds-mesh.yaml", edge.sds("mesh", stack.mesh_dir("edge")).encode())


async def keep_renewed(stack: Stack, say: Callable[[str, float | None], None]) -> None:
    """Renew certificates until cancelled; a failure is said and tried again, well before a certificate ends."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await asyncio.to_thread(renew, stack)
        except OSError as error:
            say(f"certificates could not be renewed: {error}", None)


def check_ports(stack: Stack) -> None:
    """Refuse to start where ports are in use, naming the settings that move them. Raises StackRefused."""
    embedded = {"postgres": stack.postgres is not None, "redis": stack.valkey is not None}
    embedded["stripe_sandbox"] = "STRIPE_API_KEY" not in os.environ
    complaints = []
    for name in type(stack.ports).__dataclass_fields__:
        port = getattr(stack.ports, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                setting = f"{PREFIX}{name.upper()}"
                if not embedded.get(name, True):
                    continue
                if error.errno == errno.EADDRINUSE:
                    complaints.append(f"port {port} ({name}) is in use: stop what uses it, or set {setting}")
                else:
                    complaints.append(f"port {port} ({name}) may not be used ({error.strerror}): set {setting}")
    if complaints:
        raise StackRefused("\n  ".join(complaints))


def parts(stack: Stack, say: Callable[[str, float | None], None]) -> list[Part]:
    """Return the parts in the order in which a reader would start them. `say` tells the user where data lives, if not here."""
    made: list[Part] = []
    if stack.postgres is None:
        _check_database(stack)
    else:
        made.append(_postgres(stack.postgres, say))
    if stack.valkey is not None:
        made.append(Part(name="valkey", command=stack.valkey.command, ready=stack.valkey.answers))
    if "STRIPE_API_KEY" not in os.environ:
        made.append(_sandbox(stack))
    made.append(_mail(stack))
    made.append(_migrate(stack, needs=tuple(part.name for part in made if part.name == "postgres")))
    started = {part.name for part in made}
    made += [_server(stack, domain, uses=("stripe-sandbox", "valkey", "mail"), started=started) for domain in DOMAINS]
    made.append(_envoy(stack))
    return made


def _check_database(stack: Stack) -> None:
    hint = "Look at the user and password in DATABASE_URL."
    if not postgres.answers(stack.admin_url(), hint=hint):
        raise StackRefused(
            f"DATABASE_URL: no Postgres answers at {stack.database_address()}; start it, or unset DATABASE_URL"
        )


def _postgres(server: EmbeddedPostgres, say: Callable[[str, float | None], None]) -> Part:
    def command() -> Sequence[str | Path]:
        note = server.prepare()
        if note:
            say(note, None)
        return server.command()

    return Part(
        name="postgres",
        command=command,
        ready=lambda: _answers(server),
        stop_signal=postgres.STOP_SIGNAL,
        death_signal=postgres.STOP_SIGNAL,
    )


async def _answers(server: EmbeddedPostgres) -> bool:
    return await probes.listens(server.port) and await asyncio.to_thread(server.answers)


def _python(*words: str) -> Callable[[], Sequence[str]]:
    return lambda: (sys.executable, *words)


def _migrate(stack: Stack, *, needs: tuple[str, ...]) -> Part:
    folder = SecretFolder(stack.folder / "private" / "migrate")
    folder.put("paymesh_admin_database_url", stack.admin_url())
    for name in (*DOMAINS, AUDIT):
        folder.put(f"paymesh_role_password_{name}", stack.secrets.password(f"role_{name}"))
    return Part(
        name="migrate",
        command=_python("-m", "servers", "migrate"),
        ready=_always,
        needs=needs,
        env={"PAYMESH_SECRETS_DIR": str(folder.path)},
        once=True,
    )


async def _always() -> bool:
    return True


def _sandbox(stack: Stack) -> Part:
    async def ready() -> bool:
        port = stack.ports.stripe_sandbox
        url = f"http://127.0.0.1:{port}/_sandbox/healthz"
        return await probes.listens(port) and await probes.fetch(url, _trust(stack)) is not None

    return Part(
        name="stripe-sandbox",
        command=_python("-m", "sandbox.stripe"),
        ready=ready,
        env={
            "PAYMESH_PROFILE": "dev",
            "STRIPE_SANDBOX_PORT": str(stack.ports.stripe_sandbox),
            "STRIPE_SANDBOX_DATA_DIR": str(stack.folder / "stripe-sandbox"),
            "STRIPE_SANDBOX_API_KEY": stack.secrets.prefixed("stripe_api_key", "sk_test_"),
            "STRIPE_SANDBOX_WEBHOOK_URL": f"{stack.edge_url}/webhooks/stripe",
            "STRIPE_SANDBOX_WEBHOOK_SECRET": stack.secrets.prefixed("stripe_webhook", "whsec_"),
            "STRIPE_SANDBOX_WEBHOOK_CA": str(stack.ca_file),
        },
    )


def _mail(stack: Stack) -> Part:
    async def ready() -> bool:
        port = stack.ports.mail_inbox
        url = f"http://127.0.0.1:{port}/healthz"
        return await probes.listens(port) and await probes.fetch(url, _trust(stack)) is not None

    return Part(
        name="mail",
        command=_python("-m", "sandbox.mail"),
        ready=ready,
        env={
            "PAYMESH_PROFILE": "dev",
            "MAIL_SANDBOX_SMTP_PORT": str(stack.ports.mail_smtp),
            "MAIL_SANDBOX_INBOX_PORT": str(stack.ports.mail_inbox),
            "MAIL_SANDBOX_DATA_DIR": str(stack.folder / "mail"),
        },
    )


def _server(stack: Stack, domain: str, *, uses: tuple[str, ...], started: set[str]) -> Part:
    folder = SecretFolder(stack.folder / "private" / domain)
    folder.put("paymesh_database_url", stack.database_url(domain, domain))
    folder.put("paymesh_eventlog_url", stack.database_url(EVENTLOG, domain))
    folder.put("paymesh_seal_key", stack.secrets.key(f"seal_{domain}"))
    folder.put("paymesh_redis_url", stack.redis_url())
    folder.put("paymesh_page_token_key", stack.secrets.key(f"page_token_{domain}"))
    port = getattr(stack.ports, domain)
    env = {
        "PAYMESH_PROFILE": "dev",
        "PAYMESH_GRPC_PORT": str(port),
        "PAYMESH_METRICS_PORT": str(getattr(stack.ports, f"metrics_{domain}")),
        "PAYMESH_TLS_DIR": str(stack.mesh_dir(domain)),
        "PAYMESH_PEERS": json.dumps({name: f"127.0.0.1:{getattr(stack.ports, name)}" for name in DOMAINS}),
        "PAYMESH_CRASH_DIR": str(stack.folder / "crash"),
        "PAYMESH_SECRETS_DIR": str(folder.path),
        **_given(PASSED_ON),
    }
    own: dict[str, Callable[[Stack, SecretFolder], Mapping[str, str]]] = {
        "identity": _identity,
        "payments": _payments,
        "wallets": _wallets,
        "notifications": _notifications,
    }
    if domain in own:
        env |= own[domain](stack, folder)
    return Part(
        name=domain,
        command=_python("-m", "servers", domain),
        ready=lambda: probes.serving(domain, port, stack.mesh_dir("dev")),
        needs=("migrate",),
        uses=tuple(name for name in uses if name in started),
        env=env,
    )


def _identity(stack: Stack, folder: SecretFolder) -> Mapping[str, str]:
    folder.put("paymesh_password_pepper", stack.secrets.key("password_pepper"))
    folder.put("paymesh_api_key_pepper", stack.secrets.key("api_key_pepper"))
    return {"PAYMESH_JWT_ISSUER": stack.edge_url, "PAYMESH_JWT_KEYS_DIR": str(stack.folder / "private" / "jwt")}


def _wallets(stack: Stack, folder: SecretFolder) -> Mapping[str, str]:
    folder.put("paymesh_ledger_chain_keys", stack.secrets.key("ledger_chain"))
    # A root every minute instead of every day: so that whoever tries it out need not wait.
    return {"PAYMESH_OBJECT_STORE_URL": stack.objects_dir.as_uri(), "PAYMESH_ROOT_PERIOD_SECONDS": "60"}


def _payments(stack: Stack, folder: SecretFolder) -> Mapping[str, str]:
    real = os.environ.get("STRIPE_API_KEY")
    folder.put("paymesh_stripe_api_key", real or stack.secrets.prefixed("stripe_api_key", "sk_test_"))
    webhook = os.environ.get("STRIPE_WEBHOOK_SECRET") or stack.secrets.prefixed("stripe_webhook", "whsec_")
    folder.put("paymesh_stripe_webhook_secrets", webhook)
    folder.put("paymesh_client_secret_key", stack.secrets.key("client_secret_key"))
    plan = {"PAYMESH_FEE_PLAN": json.dumps(FEE_PLAN), "PAYMESH_PUBLIC_URL": stack.edge_url}
    plan["PAYMESH_REVIEW_ABOVE_MINOR"] = json.dumps(REVIEW_ABOVE)
    if real is not None:
        return plan | _given(WAY_OUT)
    # The sandbox answers at once: what it moved may be compared right away.
    soon = {"PAYMESH_RECONCILE_EVERY_SECONDS": "3", "PAYMESH_RECONCILE_LAG_SECONDS": "2"}
    return (
        plan
        | soon
        | _given(("PAYMESH_RECONCILE_EVERY_SECONDS",))
        | {"PAYMESH_STRIPE_API_BASE": f"http://127.0.0.1:{stack.ports.stripe_sandbox}"}
    )


def _notifications(stack: Stack, folder: SecretFolder) -> Mapping[str, str]:
    return {
        "PAYMESH_SMTP_HOST": "127.0.0.1",
        "PAYMESH_SMTP_PORT": str(stack.ports.mail_smtp),
        "PAYMESH_SMTP_TLS": "none",
        "PAYMESH_SENDER_NAME": "Paymesh (local)",
        "PAYMESH_SENDER_ADDRESS": "no-reply@paymesh.example",
        "PAYMESH_PUBLIC_URL": stack.edge_url,
    }


def _given(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _envoy(stack: Stack) -> Part:
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent))
    if binary is None:
        raise StackRefused("the envoy binary is missing: run `make clean` and `make up` again")
    file = stack.folder / "run" / "envoy.yaml"

    def command() -> Sequence[str | Path]:
        settings = edge.EdgeSettings(
            ports=stack.ports,
            run_dir=file.parent,
            mesh_dir=stack.mesh_dir("edge"),
            issuer=stack.edge_url,
            limits=edge.NO_LIMITS if os.environ.get("PAYMESH_EDGE_LIMITS") == "none" else edge.LIMITS,
        )
        file.write_text(edge.render(settings))
        return (binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning")

    trust = _trust(stack)
    return Part(
        name="envoy",
        command=command,
        ready=lambda: probes.edge_serves(stack.edge_url, stack.ports.envoy_admin, trust),
        # After them: an Envoy that finds no server at first asks again only after pauses, and is ready a second later (measured).
        needs=DOMAINS,
    )


def _trust(stack: Stack) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(stack.ca_file))
