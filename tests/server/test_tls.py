"""TLS: the server's certificate, and clients' own where they are asked for."""

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from live_server import live_server
from quire.server.options import ServerOptions

OPENSSL = shutil.which("openssl")


@pytest.mark.skipif(OPENSSL is None, reason="needs openssl to make a certificate")
def test_certificates(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        [str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    stranger = ssl.create_default_context(cafile=certificate)
    known = ssl.create_default_context(cafile=certificate)
    known.load_cert_chain(certificate, key)
    files = {"ssl_certfile": certificate, "ssl_keyfile": key}
    with live_server(options=ServerOptions(**files)) as live:
        assert live.url.startswith("https://")
        with live.client(verify=stranger) as client:
            assert client.get("/health").status_code == 200
    with live_server(options=ServerOptions(**files, ssl_ca_certs=certificate)) as live:
        with live.client(verify=known) as client:
            assert client.get("/health").status_code == 200
        with live.client(verify=stranger) as client, pytest.raises(httpx.TransportError):
            client.get("/health")
