"""The tokenizer with packed weights: normalised candles ↔ token pairs, a chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.engine.kv_cache import KVCache, cache_bytes
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.engine.linear import Linear, pack_linear
from kronos_api.engine.transformer import Transformer
from kronos_api.model import KronosTokenizer


class TokenizerRunner:
    """One tokenizer checkpoint, ready to encode and decode.

    Encoding and decoding process whole chunks, so both use the packed weights of prefill.
    """

    def __init__(
        self,
        tokenizer: KronosTokenizer,
        positions: int,
        memory: KVMemory,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Pack `tokenizer` for series of up to `positions` candles.

        dtype: of the model. The encoder computes in float32, as the signs of its output are the
        tokens; torch.int8 is for the layers of the decoder.
        """
        config = tokenizer.config
        self.device = torch.device(device)
        self._tokenizer = tokenizer
        self._memory = memory
        decodes_in = dtype if dtype == torch.int8 else torch.float32
        self._encoder = Transformer(tokenizer.encoder, positions, device=device)
        self._decoder = Transformer(tokenizer.decoder, positions, device=device, dtype=decodes_in)
        self._embed = self._pack(tokenizer.embed)
        self._quantise = self._pack(tokenizer.quant_embed)
        self._head = self._pack(tokenizer.head)
        every_s1, every_s2 = torch.arange(2**config.s1_bits), torch.arange(2**config.s2_bits)
        post = tokenizer.post_quant_embed
        coarse, fine = post.weight.split([config.s1_bits, config.s2_bits], dim=1)
        s1_codes = tokenizer.codes(every_s1, torch.zeros_like(every_s1))[:, : config.s1_bits]
        s2_codes = tokenizer.codes(torch.zeros_like(every_s2), every_s2)[:, config.s1_bits :]
        self._s1_table = (s1_codes @ coarse.T).to(device, torch.float32)
        self._s2_table = (s2_codes @ fine.T + post.bias).to(device, torch.float32)

    def encoder_cache(self, capacity: int) -> KVCache:
        """Reserve the encoder's cache for a series of `capacity` candles."""
        return self._allocate(self._encoder, 1, capacity)

    def decoder_cache(self, batch_size: int, capacity: int) -> KVCache:
        """Reserve the decoder's cache for `capacity` positions of `batch_size` sample paths."""
        return self._allocate(self._decoder, batch_size, capacity)

    def decoder_cache_bytes(self, positions: int) -> int:
        """Bytes of the decoder's keys and values of `positions`, counted over all paths."""
        return cache_bytes(len(self._decoder), positions, self._decoder.width, torch.float32)

    def encode(self, candles: Tensor, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Encode the next normalised candles, float32 [n, 6] → s1 and s2, int64 [n] each."""
        hidden = self._encoder.prefill(self._embed(candles).unsqueeze(0), cache)
        cache.length += len(candles)
        return self._tokenizer.tokens(self._quantise(hidden.squeeze(0)))

    def fill_decoder(self, s1: Tensor, s2: Tensor, cache: KVCache) -> None:
        """Show the decoder the next tokens of every path, int64 [B, n], without their candles."""
        self._decoder.fill(self._embed_tokens(s1, s2), cache)
        cache.length += s1.shape[1]

    def decode(self, s1: Tensor, s2: Tensor, cache: KVCache) -> Tensor:
        """Decode the next tokens of every path, int64 [B, n] → candles, float32 [B, n, 6]."""
        hidden = self._decoder.prefill(self._embed_tokens(s1, s2), cache)
        cache.length += s1.shape[1]
        candles = self._head(hidden.reshape(-1, self._decoder.width))
        return candles.view(*s1.shape, -1)

    def _embed_tokens(self, s1: Tensor, s2: Tensor) -> Tensor:
        return F.embedding(s1, self._s1_table) + F.embedding(s2, self._s2_table)

    def _allocate(self, transformer: Transformer, batch_size: int, capacity: int) -> KVCache:
        heads = [transformer.heads] * len(transformer)
        return KVCache.allocate(
            heads, batch_size, capacity, transformer.width, self._memory, device=self.device
        )

    def _pack(self, layer: nn.Linear) -> Linear:
        weight, bias = (x.to(self.device, torch.float32) for x in (layer.weight, layer.bias))
        return pack_linear(weight, bias)
