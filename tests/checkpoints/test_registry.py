from __future__ import annotations

import pytest

from kronos_api.checkpoints.registry import PUBLISHED, split, tokenizer_of


def test_a_revision_follows_the_at_sign() -> None:
    assert split("owner/name") == ("owner/name", None)
    assert split("owner/name@") == ("owner/name", None)
    assert split("owner/name@v2") == ("owner/name", "v2")


@pytest.mark.parametrize("name", ["NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-mini@abc"])
def test_published_models_name_their_tokenizer(name: str) -> None:
    assert tokenizer_of(name) == "NeoQuasar/Kronos-Tokenizer-2k"
    assert tokenizer_of("owner/other") is None


def test_every_published_tokenizer_is_published_itself() -> None:
    for published in PUBLISHED.values():
        assert len(published.sha256) == 64
        assert published.tokenizer is None or published.tokenizer in PUBLISHED
