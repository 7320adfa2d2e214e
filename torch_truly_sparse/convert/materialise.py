"""Give content to what is left on the `meta` device once the large layers are sparse."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn

from .._module_names import ModuleNames
from ..topology import draw_seed


def check_materialisable(names: ModuleNames, replaced: Collection[nn.Module]) -> None:
    """Raise unless every module on `meta` that stays knows how to fill what it holds.

    Raises:
        ValueError: one line for each module that does not.
    """
    refusals = []
    for module in names:
        if module not in replaced and _on_meta(module):
            name = names.of(module) or "(the model itself)"
            if _reset(module) is None:
                held = ", ".join(_on_meta(module))
                refusals.append(f"  {name}: has no `reset_parameters` to fill {held}")
            elif not type(module).__module__.startswith("torch.nn.") and (
                buffers := [key for key in _on_meta(module) if key in module._buffers]
            ):
                refusals.append(f"  {name}: nothing is known to fill its buffer {buffers[0]!r}")
    if refusals:
        raise ValueError(
            "`model` is on the meta device, and these modules cannot be given content; build them "
            "on the CPU:\n" + "\n".join(refusals)
        )


def materialise(model: nn.Module, *, generator: torch.Generator | None) -> None:
    """Move what is on `meta` to the CPU and fill it as its constructors do.

    Args:
        model: checked by `check_materialisable`.
        generator: seeds what `reset_parameters` draws; None is torch's default generator.
    """
    pending = [module for module in model.modules() if _on_meta(module)]
    if not pending:
        return
    with _seeded(generator):
        for module in pending:
            module.to_empty(device="cpu", recurse=False)
        # Children first: what holds others may draw their parameters anew, as its constructor does.
        for module in reversed(pending):
            reset = _reset(module)
            if reset is not None:
                reset()


@contextlib.contextmanager
def _seeded(generator: torch.Generator | None) -> Iterator[None]:
    """Let a generator say what torch's default one draws; afterwards that is as it was."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(generator))
        yield


def _on_meta(module: nn.Module) -> list[str]:
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return [name for name, tensor in held.items() if tensor is not None and tensor.is_meta]


def _reset(module: nn.Module) -> Callable[[], object] | None:
    for name in ("reset_parameters", "_reset_parameters"):  # the latter: nn.MultiheadAttention
        method = getattr(module, name, None)
        if callable(method):
            reset: Callable[[], object] = method
            return reset
    return None
