"""Shapes of checkpoints: accepted as published, refused with the key and the value."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kronos_api.model.config import KronosConfig, TokenizerConfig
from tests.oracle import TOKENIZER

MODEL = {
    "s1_bits": 10,
    "s2_bits": 10,
    "n_layers": 4,
    "d_model": 256,
    "n_heads": 4,
    "ff_dim": 512,
}


def test_published_shapes_are_accepted() -> None:
    config = KronosConfig.from_json(MODEL)
    assert config.d_model == 256
    assert config.to_json() == MODEL | {
        "ffn_dropout_p": 0.0,
        "attn_dropout_p": 0.0,
        "resid_dropout_p": 0.0,
        "token_dropout_p": 0.0,
        "learn_te": True,
    }
    assert TokenizerConfig.from_json(TOKENIZER).to_json() == TOKENIZER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'; known are s1_bits, s2_bits"),
        ({"n_layers": "2"}, "'n_layers' must be of type int; it is '2'"),
        ({"n_layers": True}, "'n_layers' must be of type int; it is True"),
        ({"n_layers": 0}, "'n_layers' must be from 1 to 256; it is 0"),
        ({"ffn_dropout_p": float("inf")}, "'ffn_dropout_p' must be finite; it is inf"),
        ({"learn_te": 1}, "'learn_te' must be of type bool; it is 1"),
        ({"learn_te": False}, "'learn_te' must be true; it is false"),
        ({"d_model": 100, "n_heads": 3}, "'d_model' must be a multiple of 2 x 3 heads; it is 100"),
    ],
)
def test_wrong_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        KronosConfig.from_json(MODEL | change)


def test_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="missing key 'n_heads', of type int"):
        KronosConfig.from_json({key: value for key, value in MODEL.items() if key != "n_heads"})


def test_tokenizer_takes_six_columns() -> None:
    with pytest.raises(ValueError, match=r"'d_in' must be 6 \(open to amount\); it is 5"):
        TokenizerConfig.from_json(TOKENIZER | {"d_in": 5})
