"""A plain character-level transformer of `nn.Linear` layers; it knows nothing of sparsity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torch_truly_sparse as tts
from drop_in_study.settings import Settings
from drop_in_study.text import VOCABULARY


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
        """(batch, context, width) to the same."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
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
        """(batch, context, width) to the same."""
        x = x + self.attention(self.attention_norm(x))
        fed: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return fed


class Transformer(nn.Module):
    """Predicts each next character from those before it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.characters = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(settings.context, width)
        self.blocks = nn.Sequential(
            *(Block(width, settings.feed_forward, settings.heads) for _ in range(settings.blocks))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, characters: Tensor) -> Tensor:
        """(batch, context) characters to (batch, context, VOCABULARY) logits."""
        places = torch.arange(characters.shape[1])
        logits: Tensor = self.head(
            self.norm(self.blocks(self.characters(characters) + self.places(places)))
        )
        return logits


def build(form: str, settings: Settings) -> nn.Module:
    """The dense transformer, or the same with its projections truly sparse.

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
    """The feed-forward part of each block."""
    return [block.feed_forward for block in model.modules() if isinstance(block, Block)]
