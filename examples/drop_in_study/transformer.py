"""A plain character-level transformer of `nn.Linear` layers, and how it becomes sparse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torch_truly_sparse as tts
from drop_in_study.settings import Settings
from drop_in_study.text import VOCABULARY


class Characters(nn.Embedding):
    """An embedding that starts small, so that what the layers add soon outweighs it."""

    def reset_parameters(self) -> None:
        """Draw from N(0, 0.02^2), as Radford et al. 2019 (GPT-2) do."""
        nn.init.normal_(self.weight, std=0.02)


def rotated(x: Tensor) -> Tensor:
    """Turn queries or keys by their places, so that their products depend on distances alone.

    Su et al. 2021, "RoFormer" (arXiv 2104.09864): the pair (x_i, x_{i + d/2}) of a head of width d
    is turned at place t by the angle t / 10000^(2i / d).

    Args:
        x: (..., context, width of a head, even).

    Returns:
        Of the same shape.
    """
    context, width = x.shape[-2:]
    places = torch.arange(context, dtype=x.dtype)[:, None]
    angles = places / 10_000 ** (torch.arange(0, width, 2) / width)
    cosine, sine = angles.cos(), angles.sin()
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with a layer of its own for each projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, context, width) to the same shape."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(rotated(query), rotated(key), value, is_causal=True)
        attended: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return attended


class Block(nn.Module):
    """Attention, then a feed-forward part, each after a normalisation and added to its input."""

    def __init__(self, width: int, feed_forward: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, context, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        fed: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return fed


class Transformer(nn.Module):
    """Predicts each character from the characters before it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.characters = Characters(VOCABULARY, width)
        self.blocks = nn.Sequential(
            *(Block(width, settings.feed_forward, settings.heads) for _ in range(settings.blocks))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, characters: Tensor) -> Tensor:
        """Map (batch, context) characters to (batch, context, VOCABULARY) logits."""
        logits: Tensor = self.head(self.norm(self.blocks(self.characters(characters))))
        return logits


def build(form: str, settings: Settings) -> nn.Module:
    """Build the dense transformer, or the same with truly sparse projections.

    The sparse one is built without ever existing densely: first its shapes, on the meta device.
    """
    torch.manual_seed(settings.seed)
    if form == "dense":
        return Transformer(settings)
    with torch.device("meta"):
        model = Transformer(settings)
    return tts.sparsify(
        model,
        density=settings.attention_density,
        per_layer={"*.feed_forward.*": settings.feed_forward_density},
        distribution=settings.distribution,
        exclude=["head"],
        generator=torch.Generator().manual_seed(settings.seed),
    )


def feed_forward_parts(model: nn.Module) -> list[nn.Module]:
    """Return the feed-forward part of each block."""
    return [block.feed_forward for block in model.modules() if isinstance(block, Block)]
