"""An issuer of tokens with keys of its own, whose key set a test serves, changes or withholds."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "kronos-api"
ISSUER = "https://kubernetes.default.svc.cluster.local"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def new_key(kind: Literal["RS256", "ES256"] = "ES256") -> PrivateKey:
    """A new private key."""
    if kind == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: PrivateKey) -> bytes:
    """The public key as text."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def own_certificate() -> bytes:
    """A certificate for 127.0.0.1, signed by itself, and its private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private


class Issuer:
    """Signs tokens with the keys in `keys`, by their `kid`."""

    def __init__(self, **keys: PrivateKey) -> None:
        self.keys = keys

    def key_set(self) -> bytes:
        """The JSON Web Key Set."""
        listed = []
        for kid, key in self.keys.items():
            algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
            public = algorithm.to_jwk(key.public_key(), as_dict=True)
            listed.append({**public, "use": "sig", "kid": kid})
        return json.dumps({"keys": listed}).encode()

    def token(
        self,
        account: str = "shop/web",
        *,
        kid: str = "first",
        key: Any = None,
        algorithm: str | None = None,
        headers: dict[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """A token as a pod with the ServiceAccount `account` has it, `claims` aside."""
        now = int(time.time())
        content = {
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": "system:serviceaccount:" + account.replace("/", ":"),
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
        } | claims
        content.pop(without, None)
        signing = key if key is not None else self.keys[kid]
        if algorithm is None:
            algorithm = "RS256" if isinstance(signing, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(content, signing, algorithm, headers={"kid": kid, **(headers or {})})


class KeyServer:
    """Serves `content` over HTTP with `status`, after `released`, and `pieces` byte by byte."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        self.released.set()
        self.drips = False
        self.stopped = threading.Event()
        self.url = ""

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        self.released.wait(30)
        request.send_response(self.status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()
        if not self.drips:
            request.wfile.write(self.content)
            return
        while not self.stopped.wait(0.01):
            try:
                request.wfile.write(b" ")
            except OSError:
                return


@contextmanager
def serving(content: bytes, certificate: Path | None = None) -> Iterator[KeyServer]:
    """A server of `content`; with TLS if there is a `certificate`, with its key, in PEM."""
    server = KeyServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.handle(self)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            listener.socket = context.wrap_socket(listener.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        server.url = f"{scheme}://127.0.0.1:{listener.server_port}/openid/v1/jwks"
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.released.set()
            listener.shutdown()
            thread.join()
