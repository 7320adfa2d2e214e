"""Modules of a model by name, and globs that choose among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn


class ModuleNames:
    """Every name of every module of a model; a module used in several places has several.

    Args:
        model: the module to search.

    Raises:
        TypeError: it is no module, or it is wrapped for data parallelism.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"`model` must be an nn.Module, got {type(model).__name__}")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise TypeError(
                "`model` is wrapped in DistributedDataParallel, which holds on to the parameters "
                "that it was given: convert the model first, then wrap it"
            )
        self._names: dict[nn.Module, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self._names.setdefault(module, []).append(name)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._names)

    def of(self, module: nn.Module) -> str:
        """Give the first name of a module, to show to people."""
        return self._names[module][0]

    def matched(self, module: nn.Module, glob: str) -> bool:
        """Say whether a glob matches a name of the module."""
        return any(fnmatchcase(name, glob) for name in self._names[module])

    def matched_or_inside(self, module: nn.Module, glob: str) -> bool:
        """Say whether a glob matches a name of the module, or of one that holds it."""
        return any(
            fnmatchcase(name[:end], glob)
            for name in self._names[module]
            for end in [len(name), *(at for at, letter in enumerate(name) if letter == ".")]
        )

    def check_matches(
        self, argument: str, globs: Iterable[str], among: Iterable[nn.Module]
    ) -> None:
        """Raise a ValueError if a glob matches no name of these modules."""
        modules = list(among)
        for glob in globs:
            if not any(self.matched(module, glob) for module in modules):
                there = ", ".join(self.of(module) or "(the model itself)" for module in modules)
                raise ValueError(
                    f"`{argument}` has {glob!r}, which matches nothing; there are: "
                    f"{there or 'none'}"
                )


def as_globs(argument: str, globs: Iterable[str]) -> tuple[str, ...]:
    """Take globs as a tuple; a TypeError for a bare string, or for what is no text."""
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
