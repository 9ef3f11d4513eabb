"""What tokenizer and predictor are trained to minimise, and how their weights begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.model import Kronos, KronosTokenizer
from training.windows import Batch

CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.1, 0.1)
"""Volume surprises far more than price: with equal weights it would take most of the bits."""
ERROR_KNEE = 0.05
"""Errors above this (in standard deviations of the history) count linearly."""
ENTROPY_SHARPNESS = 4.0


def initialise(model: nn.Module) -> None:
    """Set weights to start from: Xavier for matrices, 1/√C for token embeddings.

    Time embeddings begin at zero, so that a minute or month that no candle ever had adds nothing.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            if name.startswith("time_emb."):
                nn.init.zeros_(module.weight)
            else:
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def reconstruction_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Weighted Huber error of candles [B, T, 6], a scalar."""
    error = F.smooth_l1_loss(found, wanted, beta=ERROR_KNEE, reduction="none")
    return (error * error.new_tensor(CHANNEL_WEIGHTS)).mean()


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy in nats of a coin, elementwise."""
    return -torch.xlogy(probability, probability) - torch.xlogy(1 - probability, 1 - probability)


def code_entropies(latents: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """How undecided single codes are, and how widely the batch uses the code book, in nats.

    Each bit is read as a coin whose bias grows with its latent. The second figure is the sum,
    over groups of `group` bits, of the entropy of the group's distribution in the batch.
    """
    bits = latents.shape[-1]
    positive = torch.sigmoid(ENTROPY_SHARPNESS * bits**0.5 * latents).reshape(-1, bits)
    undecided = binary_entropy(positive).sum(-1).mean()
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * group).reshape(-1, group)
    coins = positive.reshape(-1, bits // group, 1, group)
    chances = (coins * patterns + (1 - coins) * (1 - patterns)).prod(-1)  # [N, groups, 2^group]
    used = chances.mean(0)
    return undecided, -torch.xlogy(used, used).sum()


def tokenizer_loss(model: KronosTokenizer, batch: Batch) -> Tensor:
    """Reconstruction from all bits and from the coarse ones, commitment and entropies."""
    config = model.config
    latents = model.latents(batch.candles)
    quantised = torch.where(latents > 0, model.code_scale, -model.code_scale)
    codes = latents + (quantised - latents).detach()  # gradients pass the signs unchanged
    full = model.reconstruct(codes)
    coarse = model.reconstruct_coarse(codes[..., : config.s1_bits])
    error = reconstruction_error(full, batch.candles) + reconstruction_error(coarse, batch.candles)
    commitment = (latents - quantised.detach()).square().sum(-1).mean()
    undecided, used = code_entropies(latents, config.group_size)
    entropy = config.gamma0 * undecided - config.gamma * used
    return error + config.beta * commitment + config.zeta * entropy


@torch.no_grad()
def tokenizer_error(model: KronosTokenizer, batch: Batch) -> Tensor:
    """Reconstruction error alone, from all bits: what the best checkpoint is chosen by."""
    s1, s2 = model.tokens(model.latents(batch.candles))
    return reconstruction_error(model.reconstruct(model.codes(s1, s2)), batch.candles)


def predictor_loss(
    model: Kronos, tokenizer: KronosTokenizer, batch: Batch, *, history_weight: float
) -> Tensor:
    """Cross-entropy of s1 and of s2 given the true s1, in nats per candle.

    Rows of the history helped to set the window's mean and deviation, so that predicting them is
    easier than predicting a future: they look mean-reverting. They count `history_weight`, which
    training lowers to zero.
    """
    with torch.no_grad():
        s1, s2 = tokenizer.tokens(tokenizer.latents(batch.candles))
    hidden = model.hidden(s1[:, :-1], s2[:, :-1], batch.stamps[:, :-1])
    next_s1, next_s2 = s1[:, 1:], s2[:, 1:]
    coarse = model.s1_logits(hidden)
    fine = model.s2_logits(hidden, next_s1)
    weights = torch.full((s1.shape[1] - 1,), history_weight)
    weights[batch.history - 1 :] = 1.0
    surprise = F.cross_entropy(coarse.transpose(1, 2), next_s1, reduction="none")
    surprise = surprise + F.cross_entropy(fine.transpose(1, 2), next_s2, reduction="none")
    return (surprise * weights).sum() / (weights.sum() * len(s1))
