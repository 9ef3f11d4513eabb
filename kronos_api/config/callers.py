"""Settings of callers: how they are identified, and which are allowed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from kronos_api.config.serving import Serving
from kronos_api.security.token_issuer import TokenIssuer, is_key_location
from kronos_api.security.whitelist import (
    Network,
    Whitelist,
    listed,
    parse_private_blocks,
    parse_servers,
)

NONE: Final = "none"
"""Stands for an empty list where an empty variable means the default."""
_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s,?#@]+", re.IGNORECASE)
_HOST: Final = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]*")


class CallerSettings(Serving):
    """Settings of callers; frozen once read."""

    security_enabled: bool = True
    """Whether callers that CONTAINER_WHITELIST does not list are refused."""
    container_whitelist: str = "localhost"
    """Callers: names, addresses, CIDR blocks, localhost, serviceaccount:NAMESPACE/NAME or /*."""
    api_keys_file: Path | None = None
    """File of API keys (`kronos-api key new`), which name callers; unset: off."""
    service_account_audience: str | None = Field(default=None, min_length=1, max_length=200)
    """Audience of ServiceAccount tokens (Kubernetes), which name callers; unset: off."""
    service_account_issuer: str | None = Field(default=None, min_length=1, max_length=1000)
    """Issuer of these tokens, as in their claim `iss`."""
    service_account_jwks: str | None = None
    """Keys of the issuer: an https URL, or a file with a JSON Web Key Set."""
    service_account_ca_file: Path | None = None
    """Certificates of the authorities of that URL; unset: those of the system."""
    service_account_token_file: Path | None = None
    """File of the bearer token that is sent to that URL; unset: none is sent."""
    security_exempt_paths: str = (
        "/health,/v1/healthz,/v1/readyz,/v2/health/live,/v2/health/ready,/metrics,/v1/metrics"
    )
    """Paths that are open to every caller, compared exactly; or none."""
    trusted_proxies: str | None = None
    """Proxies whose X-Forwarded-For names the caller, listed as in CONTAINER_WHITELIST."""
    allowed_hosts: str | None = None
    """Accepted Host names, or *; unset: any, but from this machine only local names."""
    cors_origins: str | None = None
    """Allowed origins of web pages, such as https://app.example.com, or *; unset: none."""
    container_networks: str | None = None
    """Names of this container's networks; unset: learned from its own names in DNS."""
    name_subnets: str | None = None
    """Blocks beyond this host's own subnets in which DNS can name callers; unset: none."""
    dns_servers: str | None = None
    """Nameservers as address, address:port or [address]:port; unset: those of the system."""
    dns_timeout: float = Field(default=0.25, gt=0, le=0.25)
    """Seconds that DNS has to identify a caller."""

    @field_validator("container_whitelist", "trusted_proxies")
    @classmethod
    def _parses_as_whitelist(cls, value: str | None) -> str | None:
        Whitelist.parse(value or "")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _have_addresses(cls, value: str | None) -> str | None:
        if Whitelist.parse(value or "").service_accounts:
            raise ValueError("a proxy is named by its address or its name in DNS, not by a token")
        return value

    @field_validator("service_account_jwks")
    @classmethod
    def _has_keys(cls, value: str | None) -> str | None:
        if value is not None and not is_key_location(value):
            raise ValueError(
                "must be an https URL, or a file, such as "
                "https://kubernetes.default.svc/openid/v1/jwks; http only for localhost"
            )
        return value

    @field_validator("security_exempt_paths")
    @classmethod
    def _are_paths(cls, value: str) -> str:
        if value != NONE and not all(path.startswith("/") for path in listed(value)):
            raise ValueError(
                f"must be {NONE}, or paths that start with /, such as /health,/metrics"
            )
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str | None) -> str | None:
        _check_entries(value, _HOST, "a host without scheme and port, such as api.example.com")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        _check_entries(value, _ORIGIN, "an origin without a path, such as https://app.example.com")
        return value

    @field_validator("dns_servers")
    @classmethod
    def _are_nameservers(cls, value: str | None) -> str | None:
        parse_servers(value or "")
        return value

    @field_validator("name_subnets")
    @classmethod
    def _are_private_blocks(cls, value: str | None) -> str | None:
        parse_private_blocks(value or "")
        return value

    @property
    def whitelist(self) -> Whitelist:
        """Callers that are allowed."""
        return Whitelist.parse(self.container_whitelist)

    @property
    def proxies(self) -> Whitelist:
        """Peers whose X-Forwarded-For is believed."""
        return Whitelist.parse(self.trusted_proxies or "")

    @property
    def token_issuer(self) -> TokenIssuer | None:
        """Issuer of ServiceAccount tokens; None: off."""
        if self.service_account_audience is None:
            return None
        assert self.service_account_issuer is not None
        assert self.service_account_jwks is not None
        return TokenIssuer(
            audience=self.service_account_audience,
            issuer=self.service_account_issuer,
            jwks=self.service_account_jwks,
            ca_file=self.service_account_ca_file,
            token_file=self.service_account_token_file,
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of this container's networks; empty: learned from DNS."""
        return listed(self.container_networks or "")

    @property
    def named_blocks(self) -> tuple[Network, ...]:
        """Blocks beyond this host's own subnets in which DNS can name callers."""
        return parse_private_blocks(self.name_subnets or "")

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Accepted Host names; None: any, but from this machine only local ones."""
        return listed(self.allowed_hosts) if self.allowed_hosts else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins of web pages that are allowed."""
        return listed(self.cors_origins or "")

    @property
    def nameservers(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each nameserver; empty: those of the system."""
        return parse_servers(self.dns_servers or "")

    @property
    def exempt_paths(self) -> tuple[str, ...]:
        """Paths that are open to every caller."""
        return () if self.security_exempt_paths == NONE else listed(self.security_exempt_paths)


def _check_entries(value: str | None, form: re.Pattern[str], rule: str) -> None:
    """Raise `ValueError` with the number of an entry of the list `value` that breaks `rule`."""
    for number, entry in enumerate(listed(value or ""), start=1):
        if not form.fullmatch(entry):
            raise ValueError(f"entry {number} must be {rule}")
