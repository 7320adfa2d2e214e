"""Replace the linear layers of a model by truly sparse ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from .._arguments import as_fraction, check_generator
from .._module_names import ModuleNames, as_globs
from ..nn import SparseLayer, load_all_or_nothing
from ..topology import Distribution
from ..topology import distribution as distribution_of
from .layers import draw, keep_largest, keep_nonzero
from .materialise import check_materialisable, materialise
from .pretrained import guard_saving
from .replace import replace_modules, settle_fast_paths
from .replaceable import check_replaceable, find_replaceable, names_of

_INITS = ("random", "magnitude", "nonzero")


@torch.no_grad()
def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    epsilon: float | None = None,
    distribution: str | Distribution | None = None,
    exclude: Iterable[str] = (),
    per_layer: Mapping[str, float] | None = None,
    init: str = "random",
    inplace: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Replace every `nn.Linear` of a model by a `TrulySparseLinear`.

    Other modules stay as they are (so do convolutions, embeddings, `nn.Bilinear`), and so does a
    layer that would keep all of its connections. Bias, dtype, device, `requires_grad` and training
    mode are kept. A module used in several places is replaced once, everywhere.

    Args:
        model: any module; what is sparse in it already stays.
        density: fraction of the connections that the layers have afterwards, in [0, 1], or
        epsilon: scale of an Erdos-Renyi distribution. One of the two, but for `init="nonzero"` or a
            `distribution` that is an object.
        distribution: how the connections are shared out among the layers: `"uniform"` (the default
            with a density), `"erdos_renyi"` (the default with an epsilon), `"fixed_fan_in"`, or a
            `topology.Distribution`, which holds its own density.
        exclude: globs of module names (as in `model.named_modules()`; `*` matches dots, too) to
            leave alone, with all that is inside them.
        per_layer: densities by globs of module names, for the layers that they name or that are
            inside; where several match, the first counts. These layers have no share in what is
            distributed to the others.
        init: `"random"`: new topologies, and new weights at the scale of `nn.Linear`;
            `"magnitude"`: the largest trained weights stay; `"nonzero"`: all weights stay that are
            not 0, or that `torch.nn.utils.prune` has not masked.
        inplace: change the model itself. Otherwise a copy is returned, and what is replaced is
            never copied. (A model that is itself an `nn.Linear` can only be returned.)
        generator: source of randomness, or None for torch's default generator.

    Returns:
        The converted model. Make its optimizer afterwards: the parameters are new ones.

    Raises:
        TypeError: an argument has the wrong type, or arguments exclude one another.
        ValueError: a number is out of range; a glob matches no layer; no layer is left; or a layer
            cannot be replaced without losing something: subclasses of `nn.Linear` and
            `nn.MultiheadAttention.out_proj`, parametrized layers, tied weights, hooks, dtypes other
            than float32 and float64. Each is named. Or the model cannot be copied. Nothing is then
            changed.

    A model on the `meta` device that is too large to exist densely is built sparse: with
    `init="random"` its layers get content on the CPU, biases 0, and every other module there is
    filled by its own `reset_parameters`.

    From then on `load_state_dict` of the model changes nothing where the state does not fit
    (`nn.load_all_or_nothing`).

    A warning names layers that get fewer connections than they have output units: some of their
    outputs cannot depend on the input.

    A model of Hugging Face transformers saves itself (`save_pretrained`) so that its dense class
    refuses the files; convert a new dense model and load them into that.

    In evaluation `nn.TransformerEncoderLayer` calls a fused kernel for dense weights; where a layer
    of it has become sparse it takes its ordinary path instead.

    Cost: O(nnz) time and memory beside the model with `init="random"`; the others read all dense
    weights.

    Example:
        >>> model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
        >>> sparse = sparsify(model, density=0.1, exclude=["2"])
        >>> sparse[0].nnz, type(sparse[2]).__name__
        (23520, 'Linear')
    """
    names = names_of(model)
    if init not in _INITS:
        raise ValueError(f"`init` must be one of {', '.join(_INITS)}, got {init!r}")
    check_generator(generator)
    per_layer = _densities(per_layer)
    shares = None
    if init == "nonzero":
        if density is not None or epsilon is not None or distribution is not None or per_layer:
            raise TypeError(
                "`init='nonzero'` keeps what is there: give no `density`, `epsilon`, "
                "`distribution` or `per_layer`"
            )
    else:
        shares = distribution_of(distribution, density=density, epsilon=epsilon)
    layers = find_replaceable(names, nn.Linear, exclude)
    names.check_matches("per_layer", per_layer, layers)
    check_replaceable(names, layers, nn.Linear)
    replacements: dict[nn.Module, nn.Module]
    if init != "random":
        _check_content(names, layers, init)
    if shares is None:
        found = {layer: keep_nonzero(layer) for layer in layers}
        replacements = {layer: new for layer, new in found.items() if new is not None}
    else:
        counts = _counts(names, layers, shares, per_layer)
        counts = {layer: counts[layer] for layer in layers if counts[layer] < _positions(layer)}
        if init == "random":
            check_materialisable(names, counts)
        replacements = {
            layer: draw(layer, nnz, shares, generator)
            if init == "random"
            else keep_largest(layer, nnz, shares)
            for layer, nnz in counts.items()
        }
    converted = replace_modules(model, replacements, inplace=inplace)
    if init == "random":
        materialise(converted, generator=generator)
    settle_fast_paths(converted)
    if not isinstance(converted, SparseLayer):  # which refuses as a whole by itself
        load_all_or_nothing(converted)
    guard_saving(converted)
    return converted


def _counts(
    names: ModuleNames,
    layers: Iterable[nn.Linear],
    shares: Distribution,
    per_layer: Mapping[str, float],
) -> dict[nn.Linear, int]:
    counts: dict[nn.Linear, int] = {}
    others = []
    for layer in layers:
        for glob, density in per_layer.items():
            if names.matched(layer, glob):
                counts[layer] = shares.count_at(_shape(layer), density)
                break
        else:
            others.append(layer)
    counts |= dict(zip(others, shares.counts([_shape(o) for o in others]), strict=True))
    for layer, nnz in counts.items():  # a distribution of the user's own may say anything
        if not 0 <= nnz <= _positions(layer):
            raise ValueError(
                f"`distribution` gives {names.of(layer)!r} {nnz} connections; there are "
                f"{_positions(layer)} positions"
            )
    _warn_of_collapse(names, counts)
    return counts


def _warn_of_collapse(names: ModuleNames, counts: Mapping[nn.Linear, int]) -> None:
    """Warn of layers in which some output units can have no input."""
    starved = [
        f"{names.of(layer)!r} ({layer.out_features} x {layer.in_features}) gets {nnz}"
        for layer, nnz in counts.items()
        if nnz < min(layer.out_features, _positions(layer))
    ]
    if starved:
        warnings.warn(
            "layers with fewer connections than output units: "
            + ", ".join(starved)
            + ". A unit without a connection gives the same output for every sample; leave the "
            "layer dense with `exclude`, or give it more with `per_layer`",
            stacklevel=4,
        )


def _densities(per_layer: Mapping[str, float] | None) -> Mapping[str, float]:
    if per_layer is None:
        return {}
    if not isinstance(per_layer, Mapping):
        raise TypeError(f"`per_layer` must map globs to densities, got {type(per_layer).__name__}")
    as_globs("per_layer", per_layer)
    densities = {}
    for glob, given in per_layer.items():
        densities[glob] = as_fraction(given, f"per_layer[{glob!r}]")
    return densities


def _check_content(names: ModuleNames, layers: Iterable[nn.Linear], init: str) -> None:
    for layer in layers:
        if any(p is not None and p.is_meta for p in layer._parameters.values()):
            raise ValueError(
                f"`init={init!r}` reads trained weights, but {names.of(layer)!r} is on the meta "
                "device and has none; load them first, or use init='random'"
            )


def _shape(layer: nn.Linear) -> tuple[int, int]:
    return layer.out_features, layer.in_features


def _positions(layer: nn.Linear) -> int:
    return layer.out_features * layer.in_features
