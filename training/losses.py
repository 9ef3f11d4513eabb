"""Losses of the tokenizer and the model, and the initial values of their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.model import Kronos, KronosTokenizer
from training.windows import Batch

CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.1, 0.1)
"""Volume is far harder to predict than price: with equal weights it would take most bits."""
ERROR_KNEE = 0.05
"""Errors above this (in standard deviations of the history) count linearly."""
ENTROPY_SHARPNESS = 4.0


def initialise(model: nn.Module) -> None:
    """Initialise weights: Xavier for matrices, deviation 1/√C for token embeddings.

    Time embeddings start at zero, so that a minute or month without training data adds nothing.
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
    """Entropy in nats of a Bernoulli variable, elementwise."""
    return -torch.xlogy(probability, probability) - torch.xlogy(1 - probability, 1 - probability)


def code_entropies(latents: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Mean entropy of a code, and entropy of the code book's use in the batch, in nats.

    Each bit is a Bernoulli variable whose bias grows with its latent. The second figure is the
    sum, over groups of `group` bits, of the entropy of the group's distribution in the batch.
    """
    bits = latents.shape[-1]
    positive = torch.sigmoid(ENTROPY_SHARPNESS * bits**0.5 * latents).reshape(-1, bits)
    code_entropy = binary_entropy(positive).sum(-1).mean()
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * group).reshape(-1, group)
    bernoulli = positive.reshape(-1, bits // group, 1, group)
    matches = bernoulli * patterns + (1 - bernoulli) * (1 - patterns)
    usage = matches.prod(-1).mean(0)  # [groups, 2^group]
    return code_entropy, -torch.xlogy(usage, usage).sum()


def tokenizer_loss(model: KronosTokenizer, batch: Batch) -> Tensor:
    """Reconstruction error from all bits and from the s1 bits alone, commitment, entropies."""
    config = model.config
    latents = model.latents(batch.candles)
    quantised = torch.where(latents > 0, model.code_scale, -model.code_scale)
    codes = latents + (quantised - latents).detach()  # gradients pass the signs unchanged
    full = model.reconstruct(codes)
    coarse = model.reconstruct_coarse(codes[..., : config.s1_bits])
    error = reconstruction_error(full, batch.candles) + reconstruction_error(coarse, batch.candles)
    commitment = (latents - quantised.detach()).square().sum(-1).mean()
    code_entropy, usage_entropy = code_entropies(latents, config.group_size)
    entropy = config.gamma0 * code_entropy - config.gamma * usage_entropy
    return error + config.beta * commitment + config.zeta * entropy


@torch.no_grad()
def tokenizer_error(model: KronosTokenizer, batch: Batch) -> Tensor:
    """Reconstruction error from all bits, which selects the best checkpoint."""
    s1, s2 = model.tokens(model.latents(batch.candles))
    return reconstruction_error(model.reconstruct(model.codes(s1, s2)), batch.candles)


def model_loss(
    model: Kronos, tokenizer: KronosTokenizer, batch: Batch, *, history_weight: float
) -> Tensor:
    """Cross-entropy of s1 and of s2 given the true s1, in nats per candle.

    Rows of the history determine the window's mean and deviation, so they look mean-reverting and
    are easier to predict than a future. Their weight is `history_weight`, which training lowers to
    zero.
    """
    with torch.no_grad():
        s1, s2 = tokenizer.tokens(tokenizer.latents(batch.candles))
    hidden = model.hidden(s1[:, :-1], s2[:, :-1], batch.time_features[:, :-1])
    next_s1, next_s2 = s1[:, 1:], s2[:, 1:]
    coarse = model.s1_logits(hidden)
    fine = model.s2_logits(hidden, next_s1)
    weights = torch.full((s1.shape[1] - 1,), history_weight)
    weights[batch.history - 1 :] = 1.0
    losses = F.cross_entropy(coarse.transpose(1, 2), next_s1, reduction="none")
    losses = losses + F.cross_entropy(fine.transpose(1, 2), next_s2, reduction="none")
    return (losses * weights).sum() / (weights.sum() * len(s1))
