"""ServiceAccount tokens: which are valid, and what happens while keys change or are away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from kronos_api.errors import (
    CallerUnknown,
    ContainerNotAllowed,
    KronosError,
    StartupError,
    Unauthenticated,
)
from kronos_api.security import signing_keys, token_issuer
from kronos_api.security.callers import Caller
from kronos_api.security.service_accounts import ServiceAccounts
from kronos_api.security.signing_keys import (
    HOLD_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    Result,
    SigningKeys,
    parse_key_set,
)
from kronos_api.security.token_issuer import LARGEST, KeySetUnavailable, TokenIssuer
from kronos_api.security.whitelist import Whitelist
from tests.security.issuer import (
    AUDIENCE,
    ISSUER,
    Issuer,
    KeyServer,
    new_key,
    own_certificate,
    pem,
    serving,
)

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ENTRIES = "serviceaccount:shop/web,serviceaccount:jobs/*"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and fetches wait until a busy machine, too, is done."""
    monkeypatch.setattr(signing_keys, "PATIENCE", 30)
    monkeypatch.setattr(token_issuer, "FETCH_SECONDS", 30)


class Clock:
    """A clock that tests set forward."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Service:
    """Tokens of `issuer`, whose keys `fetch` returns; `results` of its fetches."""

    def __init__(self, fetch: Callable[[], bytes], entries: str | None = ENTRIES) -> None:
        self.clock = Clock()
        self.results: list[Result] = []
        self.keys = SigningKeys(fetch, observe=self.results.append, now=self.clock)
        whitelist = None if entries is None else Whitelist.parse(entries)
        self.accounts = ServiceAccounts(whitelist, self.keys, audience=AUDIENCE, issuer=ISSUER)

    async def outcome(self, token: str) -> str | type[KronosError]:
        """Name of the caller, or the class of the refusal."""
        try:
            return (await self.accounts.caller(token)).key
        except KronosError as refusal:
            return type(refusal)


def of_server(server: KeyServer) -> Callable[[], bytes]:
    return TokenIssuer(AUDIENCE, ISSUER, server.url).fetch


@pytest.mark.parametrize(
    ("account", "caller"),
    [
        ("shop/web", ("serviceaccount:shop/web", "serviceaccount:shop/web")),
        ("jobs/nightly", ("serviceaccount:jobs/*", "serviceaccount:jobs/nightly")),
        ("jobs/a.b-c", ("serviceaccount:jobs/*", "serviceaccount:jobs/a.b-c")),
        ("shop/other", None),
        ("job/s", None),
        ("jobs2/nightly", None),
    ],
)
@pytest.mark.parametrize("key", [RSA, new_key()], ids=["RS256", "ES256"])
async def test_an_entry_names_the_service_account_of_a_token(
    account: str, caller: tuple[str, str] | None, key: Any
) -> None:
    issuer = Issuer(first=key)
    service = Service(issuer.key_set)
    if caller is None:
        with pytest.raises(ContainerNotAllowed, match=f"Add serviceaccount:{account} or"):
            await service.accounts.caller(issuer.token(account))
    else:
        label, identity = caller
        found = await service.accounts.caller(issuer.token(account))
        assert found == Caller(label, identity, identity)


async def test_without_a_whitelist_each_service_account_passes_under_one_label() -> None:
    issuer = Issuer(first=new_key())
    found = await Service(issuer.key_set, None).accounts.caller(issuer.token("any/one"))
    assert (found.label, found.key) == ("other", "serviceaccount:any/one")


def signed_by_hand(header: dict[str, Any], claims: bytes, secret: bytes | None) -> str:
    """A token as an attacker makes it, whom no library stops."""

    def encoded(part: bytes) -> bytes:
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    signed = encoded(json.dumps(header).encode()) + b"." + encoded(claims)
    signature = b"" if secret is None else hmac.digest(secret, signed, hashlib.sha256)
    return (signed + b"." + encoded(signature)).decode()


def forged_tokens() -> dict[str, str]:
    """Tokens that must not pass, by what is wrong with them; the key of the issuer is `RSA`."""
    issuer, unlisted, now = Issuer(first=RSA), new_key("RS256"), int(time.time())
    good = issuer.token()
    head, claims, signature = good.split(".")
    content = base64.urlsafe_b64decode(claims + "==")
    other = base64.urlsafe_b64encode(content.replace(b"web", b"app")).rstrip(b"=").decode()
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode()
    return {
        "expired": issuer.token(exp=now - 60),
        "without expiry": issuer.token(without="exp"),
        "not valid yet": issuer.token(nbf=now + 600),
        "other audience": issuer.token(aud=["vault"]),
        "part of the audience": issuer.token(aud=AUDIENCE[:-1]),
        "without audience": issuer.token(without="aud"),
        "other issuer": issuer.token(iss=ISSUER + ".evil.example"),
        "without issuer": issuer.token(without="iss"),
        "no ServiceAccount": issuer.token(sub="system:node:worker-1"),
        "no subject": issuer.token(without="sub"),
        "three parts of a subject": issuer.token("shop/web/more"),
        "alg none": signed_by_hand({"alg": "none", "kid": "first"}, content, None),
        "alg none, capital": signed_by_hand({"alg": "None", "kid": "first"}, content, None),
        "HS256 with the public key": signed_by_hand(
            {"alg": "HS256", "kid": "first"}, content, pem(RSA)
        ),
        "HS256 with the key set": signed_by_hand(
            {"alg": "HS256", "kid": "first"}, content, issuer.key_set()
        ),
        "RS512": issuer.token(algorithm="RS512"),
        "other algorithm than the key's": issuer.token(key=new_key(), algorithm="ES256"),
        "unknown key under a known kid": issuer.token(key=unlisted),
        "unknown key and kid": issuer.token(key=unlisted, kid="second"),
        "key in its own header": issuer.token(
            key=unlisted, headers={"jwk": json.loads(Issuer(first=unlisted).key_set())["keys"][0]}
        ),
        "without kid": jwt.encode(json.loads(content), RSA, "RS256"),
        "changed claims": f"{head}.{other}.{signature}",
        "no signature": f"{head}.{claims}.",
        "cut": good[:-10],
        "empty": "",
        "three dots": "...",
        "not Base64": "a.b.c",
        "deep JSON": f"{deep}.{claims}.{signature}",
        "very long": good + "A" * 10_000,
    }


@pytest.fixture(scope="module")
def forged() -> dict[str, str]:
    return forged_tokens()


async def test_no_forged_or_foreign_token_passes(forged: dict[str, str]) -> None:
    issuer = Issuer(first=RSA)
    service = Service(issuer.key_set)
    assert await service.outcome(issuer.token()) == "serviceaccount:shop/web"
    outcomes = {wrong: await service.outcome(token) for wrong, token in forged.items()}
    assert outcomes == dict.fromkeys(forged, Unauthenticated)
    # Their clocks can differ by five seconds.
    assert await service.outcome(issuer.token(exp=int(time.time()) - 1)) != Unauthenticated


async def test_a_new_key_is_fetched_when_a_token_names_it_and_a_removed_one_ends() -> None:
    issuer = Issuer(first=new_key())
    with serving(issuer.key_set()) as server:
        service = Service(of_server(server))
        old = issuer.token()
        issuer.keys["second"] = new_key()
        server.content = issuer.key_set()
        new = issuer.token(kid="second")
        service.clock.seconds += HOLD_SECONDS
        assert await service.outcome(new) == "serviceaccount:shop/web"
        assert await service.outcome(old) == "serviceaccount:shop/web"
        del issuer.keys["first"]
        server.content = issuer.key_set()
        service.clock.seconds += REFRESH_SECONDS
        # The known keys answer while they are fetched again.
        assert await service.outcome(old) == "serviceaccount:shop/web"
        while len(service.results) < 3:
            await asyncio.sleep(0.001)
        assert await service.outcome(old) == Unauthenticated
        assert await service.outcome(new) == "serviceaccount:shop/web"


async def test_a_removed_key_is_refused_after_a_time_without_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signing_keys, "PATIENCE", 30)
    issuer = Issuer(first=new_key(), second=new_key())
    with serving(issuer.key_set()) as server:
        service = Service(of_server(server))
        server.content = Issuer(second=issuer.keys["second"]).key_set()
        service.clock.seconds += 2 * REFRESH_SECONDS
        assert await service.outcome(issuer.token()) == Unauthenticated


async def test_unknown_keys_cause_few_fetches() -> None:
    issuer, unlisted = Issuer(first=new_key()), new_key()
    fetches = 0

    def fetch() -> bytes:
        nonlocal fetches
        fetches += 1
        return issuer.key_set()

    service = Service(fetch)
    for second in range(20):
        for number in range(5):
            token = issuer.token(key=unlisted, kid=f"unknown-{second}-{number}")
            assert await service.outcome(token) == Unauthenticated
        service.clock.seconds += 1
    assert fetches == 1 + 20 // HOLD_SECONDS - 1
    assert set(service.results) == {"fetched"}


@pytest.mark.parametrize("fault", ["status", "content", "closed port", "redirect"])
async def test_known_keys_go_on_in_an_outage_and_new_ones_get_503(fault: str) -> None:
    issuer = Issuer(first=new_key(), second=new_key())
    with serving(Issuer(first=issuer.keys["first"]).key_set()) as server:
        closed = of_server(server)
    with serving(server.content) as server:
        source = [of_server(server)]
        service = Service(lambda: source[0]())
        if fault == "closed port":
            source[0] = closed
        elif fault == "content":
            server.content = b'{"keys": [{"kty": "oct", "kid": "second", "k": "c2VjcmV0"}]}'
        else:
            server.status = 500 if fault == "status" else 302
            server.headers = {"Location": "/elsewhere"}
        service.clock.seconds += REFRESH_SECONDS
        for _ in range(3):
            assert await service.outcome(issuer.token()) == "serviceaccount:shop/web"
            assert await service.outcome(issuer.token(kid="second")) == CallerUnknown
            assert await service.outcome(issuer.token(exp=1)) == Unauthenticated
            service.clock.seconds += RETRY_SECONDS
        assert service.results == ["fetched", *["failed"] * 3]
        server.content, server.status, source[0] = issuer.key_set(), 200, of_server(server)
        assert await service.outcome(issuer.token(kid="second")) == "serviceaccount:shop/web"


async def test_a_service_that_starts_in_an_outage_recovers() -> None:
    issuer = Issuer(first=new_key())
    with serving(b"") as server:
        service = Service(of_server(server))
        assert await service.outcome(issuer.token()) == CallerUnknown
        server.content = issuer.key_set()
        service.clock.seconds += RETRY_SECONDS
        assert await service.outcome(issuer.token()) == "serviceaccount:shop/web"


async def test_a_fetch_that_hangs_holds_up_neither_loop_nor_known_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer = Issuer(first=new_key(), second=new_key())
    with serving(Issuer(first=issuer.keys["first"]).key_set()) as server:
        service = Service(of_server(server))
        server.content = issuer.key_set()
        server.released.clear()
        service.clock.seconds += HOLD_SECONDS
        waiting = asyncio.ensure_future(service.outcome(issuer.token(kid="second")))
        while len(server.requests) < 2:
            await asyncio.sleep(0.001)
        # The server has the request and is silent, so these do not wait for it.
        assert await service.outcome(issuer.token()) == "serviceaccount:shop/web"
        assert not waiting.done()
        monkeypatch.setattr(signing_keys, "PATIENCE", 0.01)
        assert await service.outcome(issuer.token(kid="second")) == CallerUnknown
        assert len(server.requests) == 2, "one fetch at a time"
        server.released.set()
        assert await waiting == "serviceaccount:shop/web"


def test_a_response_that_comes_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_issuer, "FETCH_SECONDS", 0.2)
    with serving(b" " * 100_000) as server:
        server.drips = True
        with pytest.raises(KeySetUnavailable):
            of_server(server)()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(own_certificate())
    return file


def test_the_url_is_asked_with_the_token_of_the_pod_by_its_authority(
    certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("first-token\n")
    with serving(Issuer(first=new_key()).key_set(), certificate) as server:
        trusting = TokenIssuer(AUDIENCE, ISSUER, server.url, certificate, token)
        trusting.check()
        assert parse_key_set(trusting.fetch()).keys() == {"first"}
        token.write_text("second-token")
        trusting.fetch()
        sent = [request["authorization"] for request in server.requests]
        assert sent == ["Bearer first-token", "Bearer second-token"]
        with pytest.raises(KeySetUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            TokenIssuer(AUDIENCE, ISSUER, server.url, token_file=token).fetch()
        assert len(server.requests) == 2, "no token goes to a server that is not trusted"
        token.write_text("third\ntoken")
        service = Service(trusting.fetch)
        assert service.results == ["failed"]
    assert "token" not in capsys.readouterr().out.replace("token_", "")


def test_keys_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(Issuer(first=RSA, second=new_key()).key_set())
    issuer = TokenIssuer(AUDIENCE, ISSUER, str(file))
    issuer.check()
    assert parse_key_set(issuer.fetch()).keys() == {"first", "second"}
    file.write_bytes(b" " * (LARGEST + 1))
    with pytest.raises(KeySetUnavailable, match="bytes"):
        issuer.fetch()


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"keys": 1}', '{"keys": [1]}', "[" * 99_999])
def test_what_is_no_key_set_is_refused(content: str) -> None:
    with pytest.raises(KeySetUnavailable):
        parse_key_set(content.encode())


def test_keys_of_other_kinds_and_private_parts_are_left_out() -> None:
    public = json.loads(Issuer(rsa=RSA).key_set())["keys"][0]
    private = RSAAlgorithm.to_jwk(RSA, as_dict=True)
    listed = [
        public | {"use": "enc", "kid": "encryption"},
        public | {"alg": "RS512", "kid": "longer"},
        {name: value for name, value in public.items() if name != "kid"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "edwards"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "off the curve"},
        private | {"kid": "private"},
    ]
    found = parse_key_set(json.dumps({"keys": listed}).encode())
    assert found.keys() == {"private"}
    assert isinstance(found["private"].key, rsa.RSAPublicKey)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"jwks": "/nowhere/keys"}, "KRONOS_SERVICE_ACCOUNT_JWKS: /nowhere/keys is no file"),
        ({"ca_file": Path("/nowhere")}, "KRONOS_SERVICE_ACCOUNT_CA_FILE: /nowhere is no file"),
        ({"ca_file": Path(__file__)}, "KRONOS_SERVICE_ACCOUNT_CA_FILE: .* has no certificate"),
        ({"token_file": Path("/nowhere")}, "KRONOS_SERVICE_ACCOUNT_TOKEN_FILE: /nowhere is no"),
    ],
)
def test_a_file_that_is_missing_ends_the_start(files: dict[str, Any], expected: str) -> None:
    issuer = TokenIssuer(AUDIENCE, ISSUER, **({"jwks": "https://10.0.0.1/keys"} | files))
    with pytest.raises(StartupError, match=expected):
        issuer.check()
