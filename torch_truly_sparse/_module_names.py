"""Modules of a model by name, and globs that choose among them.

Everywhere, a glob selects the modules whose name it matches, and every module inside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from ._arguments import check_module
from ._wrappers import unwrapped

_Module = TypeVar("_Module", bound=nn.Module)


class ModuleNames:
    """Every name of every module of a model; a module used in several places has several names.

    Args:
        model: the module to search. Wrappers around the whole model add nothing to the names.

    Raises:
        TypeError: `model` is not an `nn.Module`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[nn.Module, list[str]] = {}
        inside = unwrapped(check_module(model, "model"))
        for name, module in inside.named_modules(remove_duplicate=False):
            self._names.setdefault(module, []).append(name)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._names)

    def of(self, module: nn.Module) -> str:
        """Return the first name of a module, to show to people."""
        return self._names[module][0]

    def matched(self, module: nn.Module, glob: str) -> bool:
        """Return whether a glob matches a name of the module, or of a module that contains it."""
        return any(
            fnmatchcase(name[:end], glob)
            for name in self._names[module]
            for end in [len(name), *(at for at, letter in enumerate(name) if letter == ".")]
        )

    def check_matches(
        self, argument: str, globs: Iterable[str], layers: Iterable[nn.Module]
    ) -> None:
        """Raise unless each glob matches one of these layers.

        Args:
            argument: name of the argument that holds the globs, for the error.
            globs: globs of module names.
            layers: modules of the model.

        Raises:
            ValueError: a glob matches none of the layers.
        """
        layers = list(layers)
        for glob in globs:
            if not any(self.matched(layer, glob) for layer in layers):
                there = ", ".join(self.of(layer) or "(the model itself)" for layer in layers)
                raise ValueError(
                    f"`{argument}` has {glob!r}, which matches none of the layers "
                    f"({there or 'there are none'}) and no module that holds one"
                )

    def without(self, layers: Iterable[_Module], exclude: Iterable[str]) -> list[_Module]:
        """Return the layers that no glob of the argument `exclude` matches, in their order.

        Raises:
            TypeError: `exclude` is not a list of globs.
            ValueError: a glob matches none of the layers.
        """
        layers, globs = list(layers), as_globs("exclude", exclude)
        self.check_matches("exclude", globs, layers)
        return [layer for layer in layers if not any(self.matched(layer, glob) for glob in globs)]


def as_globs(argument: str, globs: Iterable[str]) -> tuple[str, ...]:
    """Return globs as a tuple.

    Raises:
        TypeError: the argument is a single string, is not iterable, or holds anything but strings.
    """
    if isinstance(globs, str):
        raise TypeError(f"`{argument}` must be a list of globs; write [{globs!r}]")
    try:
        listed = tuple(globs)
    except TypeError:
        raise TypeError(f"`{argument}` must be a list of globs, got {globs!r}") from None
    for glob in listed:
        if not isinstance(glob, str):
            raise TypeError(f"`{argument}` must hold globs of module names, got {glob!r}")
    return listed
