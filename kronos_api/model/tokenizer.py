"""The tokenizer: normalised candles ↔ pairs of discrete tokens, by binary spherical quantisation.

A candle becomes s1_bits + s2_bits signs. Bits 0 … s1_bits - 1 are the coarse token s1, the rest
the fine token s2; bit i of a token weighs 2^i. Encoder and decoder are causal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.model.config import TokenizerConfig
from kronos_api.model.layers import Block


class _Quantizer(nn.Module):
    """Holds the two constant tables that every published tokenizer checkpoint stores."""

    def __init__(self, bits: int, group_size: int) -> None:
        super().__init__()
        self.bsq = nn.Module()
        self.bsq.register_buffer("basis", 2 ** torch.arange(bits - 1, -1, -1))
        self.bsq.register_buffer("group_basis", 2 ** torch.arange(group_size - 1, -1, -1))


class KronosTokenizer(nn.Module):
    """Encoder, sign quantiser and decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        bits = config.s1_bits + config.s2_bits
        self.code_scale = bits**-0.5

        def blocks(layers: int) -> nn.ModuleList:
            # The published configurations count one layer more than their checkpoints hold.
            return nn.ModuleList(
                Block(
                    config.d_model,
                    config.n_heads,
                    config.ff_dim,
                    config.ffn_dropout_p,
                    config.attn_dropout_p,
                    config.resid_dropout_p,
                )
                for _ in range(layers - 1)
            )

        self.embed = nn.Linear(config.d_in, config.d_model)
        self.encoder = blocks(config.n_enc_layers)
        self.quant_embed = nn.Linear(config.d_model, bits)
        self.tokenizer = _Quantizer(bits, config.group_size)
        self.post_quant_embed_pre = nn.Linear(config.s1_bits, config.d_model)
        self.post_quant_embed = nn.Linear(bits, config.d_model)
        self.decoder = blocks(config.n_dec_layers)
        self.head = nn.Linear(config.d_model, config.d_in)

    def latents(self, candles: Tensor) -> Tensor:
        """Encode normalised `candles` [B, T, 6] to unit vectors [B, T, bits], not yet quantised."""
        x = self.embed(candles)
        for block in self.encoder:
            x = block(x)
        return F.normalize(self.quant_embed(x), dim=-1)

    def tokens(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise `latents` [..., bits] to s1 and s2 token ids, int64 [...]."""
        signs = (latents > 0).long()
        s1, s2 = signs.split([self.config.s1_bits, self.config.s2_bits], dim=-1)
        return (s1 * _weights(s1)).sum(-1), (s2 * _weights(s2)).sum(-1)

    def codes(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Return the quantised vectors [..., bits] (±1 / √bits) of token ids [...]."""
        bits = [
            (ids.unsqueeze(-1) >> torch.arange(count, device=ids.device)) & 1
            for ids, count in ((s1, self.config.s1_bits), (s2, self.config.s2_bits))
        ]
        codes: Tensor = (torch.cat(bits, dim=-1) * 2 - 1).float() * self.code_scale
        return codes

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Decode quantised vectors [B, T, bits] to normalised candles [B, T, 6]."""
        return self._decode(self.post_quant_embed(codes))

    def reconstruct_coarse(self, codes: Tensor) -> Tensor:
        """Decode the s1 part alone, [B, T, s1_bits] → [B, T, 6]; used in training only."""
        return self._decode(self.post_quant_embed_pre(codes))

    def _decode(self, x: Tensor) -> Tensor:
        for block in self.decoder:
            x = block(x)
        candles: Tensor = self.head(x)
        return candles


def _weights(bits: Tensor) -> Tensor:
    return 2 ** torch.arange(bits.shape[-1], device=bits.device)
