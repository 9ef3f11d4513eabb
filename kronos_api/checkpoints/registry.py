"""Checkpoints that the authors of Kronos published: digests, revisions, tokenizers, contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint; `sha256` is of its weights file, at `revision` or the newest.

    `megabytes` is the size of that file in MiB. `tokenizer` is a hub id and `max_context` is in
    candles; both are None for tokenizers.
    """

    sha256: str
    megabytes: float = 0.0
    revision: str | None = None
    tokenizer: str | None = None
    max_context: int | None = None


PUBLISHED: Final[Mapping[str, Published]] = {
    "NeoQuasar/Kronos-mini": Published(
        sha256="a7d5f37e2e9fbd9891f7d7d4f72574512dd1f704fee14223e0a8cd0fbf54197c",
        megabytes=16,
        tokenizer="NeoQuasar/Kronos-Tokenizer-2k",
        max_context=2048,
    ),
    "NeoQuasar/Kronos-small": Published(
        sha256="b082dfcbd8e8c142a725c8bbb99781802f38fec81210e13479effb32b3c3e020",
        megabytes=95,
        revision="901c26c1332695a2a8f243eb2f37243a37bea320",
        tokenizer="NeoQuasar/Kronos-Tokenizer-base",
        max_context=512,
    ),
    "NeoQuasar/Kronos-base": Published(
        sha256="abff193acab6db1a0368e9773e75799d11403b6d054ee6d5f0a11aeabc5f4b83",
        megabytes=391,
        tokenizer="NeoQuasar/Kronos-Tokenizer-base",
        max_context=512,
    ),
    "NeoQuasar/Kronos-Tokenizer-2k": Published(
        sha256="b97ec46b3b72160509e289183eaf7bdf5f0dac5bb9b49522f6d46638a99a8717",
        megabytes=16,
    ),
    "NeoQuasar/Kronos-Tokenizer-base": Published(
        sha256="59d85f6af76a2c3b8240ea06cb21db4213b4eeca053f246b23e29cf832fc6bee",
        megabytes=16,
        revision="0e0117387f39004a9016484a186a908917e22426",
    ),
}
"""By hub id."""


def split(source: str) -> tuple[str, str | None]:
    """A hub id's name and its `@revision`, if it has one."""
    name, _, revision = source.partition("@")
    return name, revision or None


def tokenizer_of(model: str) -> str | None:
    """The tokenizer that a published model, named by its hub id, was trained with."""
    published = PUBLISHED.get(split(model)[0])
    return published.tokenizer if published else None
