"""Certificates are renewed while calls go on: no call notices, and the new ones are the ones in use."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509

from dev import edge, pki
from dev.paths import DOMAINS
from tests.support.stack import Platform, Shop, wait_for


def serial_of(folder: Path) -> int:
    """Return the serial number of a folder's certificate."""
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).serial_number


def served_serial(platform: Platform, port: int) -> int:
    """Return the serial number of the certificate that a port of the edge serves."""
    pem = ssl.get_server_certificate(("localhost", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def renew_all(platform: Platform) -> None:
    """Issue every leaf anew, as the stack does at half of their life."""
    mesh = pki.Authority(platform.folder / "private" / "ca", "mesh")
    public = pki.Authority(platform.folder / "private" / "ca", "edge")
    for name in (*DOMAINS, "edge", "dev"):
        mesh.issue(platform.folder / "tls" / name, names=pki.mesh_names(name), common_name=name)
    public.issue(platform.folder / "tls" / "public", names=pki.edge_names(), common_name="localhost")
    run = platform.folder / "run"
    pki.write_private(run / "sds-edge.yaml", edge.sds("edge", platform.folder / "tls" / "public").encode())
    pki.write_private(run / "sds-mesh.yaml", edge.sds("mesh", platform.folder / "tls" / "edge").encode())


def test_calls_go_on_while_every_certificate_is_replaced(shop: Shop) -> None:
    platform = shop.platform
    failures: list[int] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            response = shop.call("GET", "/v1/balances", token=shop.seller_token)
            if response.status_code != 200:
                failures.append(response.status_code)

    caller = threading.Thread(target=call)
    caller.start()
    renew_all(platform)
    port = platform.state["ports"]["edge"]
    wait_for(
        lambda: served_serial(platform, port) == serial_of(platform.folder / "tls" / "public"), "the edge's renewal"
    )
    for domain in DOMAINS:
        wait_for(
            lambda domain=domain: mesh_serial(platform, domain) == serial_of(platform.folder / "tls" / domain), domain
        )
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.ok(shop.refund(payment["id"], 100))  # payments calls wallets with its new certificate
    stop.set()
    caller.join()
    assert failures == []


def mesh_serial(platform: Platform, domain: str) -> int:
    """Return the serial number of the certificate that a server serves to a peer of the mesh."""
    folder = platform.folder / "tls" / "dev"
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])

    with (
        socket.create_connection(("127.0.0.1", platform.state["ports"][domain]), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=f"{domain}.paymesh.internal") as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
