"""Models of Hugging Face transformers: what is saved of a converted one is not taken for dense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import TrulySparseLinear


def guard_saving(model: nn.Module) -> None:
    """Make `model.save_pretrained` write files that the model's dense class refuses to load.

    `from_pretrained` makes the model by its class, which knows nothing of the conversion: it would
    build dense layers, find no weights for them and leave them at random values, with no more than
    a warning. With an empty `weight` for each sparse layer in the file it raises an error of sizes.

    Args:
        model: a converted model; one without `save_pretrained` is left as it is.
    """
    if callable(getattr(type(model), "save_pretrained", None)):
        model.save_pretrained = GuardedSave(model)  # type: ignore[assignment]


def unguard_saving(model: nn.Module) -> None:
    """Undo `guard_saving`."""
    model.__dict__.pop("save_pretrained", None)


def mark_sparse(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with an empty `weight` for each sparse layer of a model."""
    state = dict(state_dict)
    for name, module in model.named_modules():
        if isinstance(module, TrulySparseLinear):
            state[f"{name}.weight" if name else "weight"] = torch.empty(0)
    return state


class GuardedSave:
    """`save_pretrained` of a converted model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self, *arguments: Any, state_dict: Mapping[str, Tensor] | None = None, **options: Any
    ) -> Any:
        """Save as the model's class does, and mark the layers that are sparse."""
        state = mark_sparse(
            self.model, self.model.state_dict() if state_dict is None else state_dict
        )
        save = type(self.model).save_pretrained
        return save(self.model, *arguments, state_dict=state, **options)
