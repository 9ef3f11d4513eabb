"""The model: a causal transformer over token pairs that predicts s1, then s2 given s1."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.model.config import DEPENDENCY_HEADS, KronosConfig
from kronos_api.model.layers import NORM_EPSILON, Attention, Block

TIME_FEATURE_SIZES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}


class _PairEmbedding(nn.Module):
    """Embeds a token pair: both embeddings, scaled by √C, joined and projected back to C."""

    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.emb_s1 = nn.Embedding(2**config.s1_bits, config.d_model)
        self.emb_s2 = nn.Embedding(2**config.s2_bits, config.d_model)
        self.fusion_proj = nn.Linear(2 * config.d_model, config.d_model)

    def forward(self, s1: Tensor, s2: Tensor) -> Tensor:
        pair = torch.cat((self.emb_s1(s1), self.emb_s2(s2)), dim=-1) * self.scale
        embedded: Tensor = self.fusion_proj(pair)
        return embedded


class _TimeEmbedding(nn.Module):
    """Sum of one learned embedding for each of `TIME_FEATURE_SIZES`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, size in TIME_FEATURE_SIZES.items():
            self.add_module(f"{name}_embed", nn.Embedding(size, width))

    def forward(self, time_features: Tensor) -> Tensor:
        columns = time_features.unbind(-1)
        parts = [
            self.get_submodule(f"{name}_embed")(column)
            for name, column in zip(TIME_FEATURE_SIZES, columns, strict=True)
        ]
        return torch.stack(parts).sum(0)


class _DependencyLayer(nn.Module):
    """Conditions the s2 prediction on the sampled s1.

    Published checkpoints were trained with RoPE on queries and keys, yet at inference a single
    query rotates neither; this layer applies no RoPE at all.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross_attn = Attention(width, DEPENDENCY_HEADS, 0.0, 0.0, rotate=False)
        self.norm = nn.RMSNorm(width, eps=NORM_EPSILON)

    def forward(self, hidden: Tensor, s1_embedding: Tensor) -> Tensor:
        out: Tensor = self.norm(hidden + self.cross_attn(s1_embedding, hidden))
        return out


class _DualHead(nn.Module):
    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        self.proj_s1 = nn.Linear(config.d_model, 2**config.s1_bits)
        self.proj_s2 = nn.Linear(config.d_model, 2**config.s2_bits)


class Kronos(nn.Module):
    """The autoregressive network over token pairs and time features."""

    def __init__(self, config: KronosConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = _PairEmbedding(config)
        self.time_emb = _TimeEmbedding(config.d_model)
        self.transformer = nn.ModuleList(
            Block(
                config.d_model,
                config.n_heads,
                config.ff_dim,
                config.ffn_dropout_p,
                config.attn_dropout_p,
                config.resid_dropout_p,
            )
            for _ in range(config.n_layers)
        )
        self.norm = nn.RMSNorm(config.d_model, eps=NORM_EPSILON)
        self.dep_layer = _DependencyLayer(config.d_model)
        self.head = _DualHead(config)

    def hidden(self, s1: Tensor, s2: Tensor, time_features: Tensor) -> Tensor:
        """Run the transformer.

        Args:
            s1, s2: token ids, int64 [B, T].
            time_features: int64 [B, T, 5] in the order of `TIME_FEATURE_SIZES`.

        Returns:
            Hidden states [B, T, C] after the final norm.
        """
        x = self.embedding(s1, s2) + self.time_emb(time_features)
        x = F.dropout(x, self.config.token_dropout_p, self.training)
        for block in self.transformer:
            x = block(x)
        normal: Tensor = self.norm(x)
        return normal

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next s1 at every position: [B, T, C] → [B, T, 2^s1_bits]."""
        logits: Tensor = self.head.proj_s1(hidden)
        return logits

    def s2_logits(self, hidden: Tensor, next_s1: Tensor) -> Tensor:
        """Logits of the next s2 given the next s1 (int64 [B, T]) at every position."""
        s1_embedding = self.embedding.emb_s1(next_s1)
        logits: Tensor = self.head.proj_s2(self.dep_layer(hidden, s1_embedding))
        return logits
