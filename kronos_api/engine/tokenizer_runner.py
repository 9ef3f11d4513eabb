"""The tokenizer laid out for the engine: normalised candles ↔ token pairs, a chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.linear import make_linear
from kronos_api.engine.transformer import Stack
from kronos_api.model import KronosTokenizer


class Codec:
    """One tokenizer checkpoint, ready to encode and decode."""

    def __init__(self, tokenizer: KronosTokenizer, positions: int, like: Tensor) -> None:
        """Lay out `tokenizer` for series of up to `positions` rows, on the device of `like`."""
        config = tokenizer.config
        self._tokenizer = tokenizer
        self._like = like
        self._encoder = Stack(tokenizer.encoder, positions, like)
        self._decoder = Stack(tokenizer.decoder, positions, like)
        embed, quantise, head = tokenizer.embed, tokenizer.quant_embed, tokenizer.head
        self._embed = make_linear(embed.weight.to(like), embed.bias.to(like))
        self._quantise = make_linear(quantise.weight.to(like), quantise.bias.to(like))
        self._head = make_linear(head.weight.to(like), head.bias.to(like))
        every_s1, every_s2 = torch.arange(2**config.s1_bits), torch.arange(2**config.s2_bits)
        post = tokenizer.post_quant_embed
        coarse, fine = post.weight.split([config.s1_bits, config.s2_bits], dim=1)
        s1_codes = tokenizer.codes(every_s1, torch.zeros_like(every_s1))[:, : config.s1_bits]
        s2_codes = tokenizer.codes(torch.zeros_like(every_s2), every_s2)[:, config.s1_bits :]
        self._s1_table = (s1_codes @ coarse.T).to(like)
        self._s2_table = (s2_codes @ fine.T + post.bias).to(like)

    def encoder_memory(self, rows: int) -> Memory:
        """Reserve the encoder's memory for a series of `rows` candles."""
        return _memory(self._encoder, 1, rows, self._like)

    def decoder_memory(self, paths: int, positions: int) -> Memory:
        """Reserve the decoder's memory for `positions` of `paths` sample paths."""
        return _memory(self._decoder, paths, positions, self._like)

    def encode(self, candles: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Encode the next normalised candles, float32 [n, 6] → s1 and s2, int64 [n] each."""
        hidden = self._encoder.extend(self._embed(candles.to(self._like)).unsqueeze(0), memory)
        memory.length += len(candles)
        return self._tokenizer.tokens(self._quantise(hidden.squeeze(0)))

    def decode(self, s1: Tensor, s2: Tensor, memory: Memory) -> Tensor:
        """Decode the next tokens of every path, int64 [B, n] → candles, float32 [B, n, 6]."""
        hidden = self._decoder.extend(self._s1_table[s1] + self._s2_table[s2], memory)
        memory.length += s1.shape[1]
        candles = self._head(hidden.reshape(-1, self._decoder.width))
        return candles.view(*s1.shape, -1).float()


def _memory(stack: Stack, paths: int, positions: int, like: Tensor) -> Memory:
    return Memory.allocate([stack.heads] * len(stack), paths, positions, stack.width, like)
