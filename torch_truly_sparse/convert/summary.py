"""What the layers of a model hold, and what they would hold densely."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .._arguments import as_int, check_module
from ..nn import PackedLinear, TrulySparseLinear

_UNITS = ("kB", "MB", "GB", "TB")
_REPEATS = 5  # of each measured form; the median counts


@dataclass(frozen=True)
class LayerSummary:
    """One linear layer, dense, truly sparse or packed."""

    name: str
    sparse: bool
    shape: tuple[int, int]  # (out_features, in_features)
    nnz: int
    density: float
    bytes_dense: int  # of the parameters of an nn.Linear of this shape
    bytes: int  # of the parameters and buffers that are there
    isolated_outputs: int = 0  # output units without a connection
    isolated_inputs: int = 0  # input units without a connection
    seconds_dense: float | None = None  # forward and backward, where they were measured
    seconds: float | None = None
    packed: torch.dtype | None = None  # of the weights of a packed layer

    @property
    def kind(self) -> str:
        """`"dense"`, `"sparse"`, or `"packed"` and the dtype."""
        if self.packed is not None:
            return f"packed {str(self.packed).removeprefix('torch.')}"
        return "sparse" if self.sparse else "dense"


@dataclass(frozen=True)
class ModelSummary:
    """The linear layers of a model, each once; prints as a table.

    Attributes:
        rows: one entry for each layer.
        other_bytes: of all other parameters and buffers.
        batch: samples that the times are for; None where none were measured.
    """

    rows: tuple[LayerSummary, ...]
    other_bytes: int
    batch: int | None = None

    @property
    def nnz(self) -> int:
        """Connections of all layers."""
        return sum(row.nnz for row in self.rows)

    @property
    def density(self) -> float:
        """Connections of all layers relative to all that there could be."""
        positions = sum(row.shape[0] * row.shape[1] for row in self.rows)
        return self.nnz / positions if positions else 0.0

    @property
    def bytes_dense(self) -> int:
        """What the model would hold with all of its layers dense."""
        return sum(row.bytes_dense for row in self.rows) + self.other_bytes

    @property
    def bytes(self) -> int:
        """What the model holds."""
        return sum(row.bytes for row in self.rows) + self.other_bytes

    def __str__(self) -> str:
        head = ["layer", "kind", "out x in", "nnz", "density", "dense", "now"]
        lines = [
            [
                row.name or "(the model itself)",
                row.kind,
                f"{row.shape[0]:,} x {row.shape[1]:,}",
                f"{row.nnz:,}",
                f"{row.density:.3%}",
                _size(row.bytes_dense),
                _size(row.bytes),
            ]
            for row in self.rows
        ]
        other = [
            "everything else",
            "",
            "",
            "",
            "",
            _size(self.other_bytes),
            _size(self.other_bytes),
        ]
        total = ["total", "", "", f"{self.nnz:,}", f"{self.density:.3%}"]
        total += [_size(self.bytes_dense), _size(self.bytes)]
        if self.batch is not None:
            head += ["dense time", "time"]
            for line, row in zip(lines, self.rows, strict=True):
                line += [_time(row.seconds_dense), _time(row.seconds)]
            other += ["", ""]
            total += [
                _time(sum(row.seconds_dense or 0.0 for row in self.rows)),
                _time(sum(row.seconds or 0.0 for row in self.rows)),
            ]
        return _table(head, lines, [other, total]) + self._isolated()

    def _isolated(self) -> str:
        """Say which layers have units that nothing goes through."""
        lines = [
            f"\n{row.name or '(the model itself)'}: {row.isolated_outputs:,} output units without "
            f"an input, {row.isolated_inputs:,} input units that nothing reads"
            for row in self.rows
            if row.isolated_outputs or row.isolated_inputs
        ]
        return "".join(lines)


def summary(model: nn.Module, *, batch: int | None = None) -> ModelSummary:
    """Tell shape, connections and bytes of each linear layer, before and after.

    Args:
        model: any module, on the `meta` device too; its `nn.Linear` and `TrulySparseLinear` layers
            get a row each, and so do the layers of a packed model; a shared one a single row.
        batch: samples for which to measure the time of each layer, forward and backward, in both
            forms; None measures nothing. Measuring makes the dense form of one layer after the
            other. Packed layers, which have no backward pass, are not measured.

    Returns:
        A `ModelSummary`: `print` it, or read its `rows`. Units that no connection reaches are
        counted, and printed below the table where there are any. Bytes are those of parameters and
        buffers: a sparse weight has its value (4 in float32) and its coordinates (8). Gradients,
        the optimizer's state, row pointers and the transposed order (8 a weight, once an input
        gradient has been asked for) come on top.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `batch` is less than 1, a layer to be measured is on `meta`, or an
            `nn.LazyLinear` does not know its size yet.

    Example:
        >>> import torch_truly_sparse as tts
        >>> model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
        >>> print(tts.summary(tts.sparsify(model, density=0.1, exclude=["2"])))
        layer            kind     out x in     nnz   density     dense       now
        ------------------------------------------------------------------------
        0                sparse  300 x 784  23,520   10.000%  942.0 kB  283.6 kB
        2                dense    10 x 300   3,000  100.000%   12.0 kB   12.0 kB
        ------------------------------------------------------------------------
        everything else                                            0 B       0 B
        total                               26,520   11.134%  954.0 kB  295.7 kB
    """
    check_module(model, "model")
    batch = None if batch is None else as_int(batch, "batch", least=1)
    rows, counted = [], set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | TrulySparseLinear):
            if any(is_lazy(parameter) for parameter in module.parameters()):
                raise ValueError(
                    f"{name or '(the model itself)'!r} is a {type(module).__name__} whose size is "
                    "not known yet; run a batch through the model first"
                )
            rows.append(_row(name, module, batch))
        elif isinstance(module, PackedLinear):
            rows.append(_packed_row(name, module))
        if isinstance(module, nn.Linear | TrulySparseLinear | PackedLinear):
            counted |= {id(t) for t in (*module.parameters(), *module.buffers())}
    others = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in counted}
    return ModelSummary(tuple(rows), sum(map(_bytes, others.values())), batch)


def _row(name: str, layer: nn.Linear | TrulySparseLinear, batch: int | None) -> LayerSummary:
    shape = (layer.out_features, layer.in_features)
    positions = shape[0] * shape[1]
    held = [*layer.parameters(), *layer.buffers()]
    sparse = isinstance(layer, TrulySparseLinear)
    nnz = layer.nnz if isinstance(layer, TrulySparseLinear) else positions
    weight = layer.values if isinstance(layer, TrulySparseLinear) else layer.weight
    numbers = positions + (shape[0] if layer.bias is not None else 0)
    now = sum(map(_bytes, held))
    seconds = seconds_dense = None
    if batch is not None:
        if weight.is_meta:
            raise ValueError(f"`batch`: {name!r} is on the meta device and cannot be measured")
        seconds = _measure(layer, weight, batch)
        seconds_dense = (
            _measure(layer.to_dense(), weight, batch)
            if isinstance(layer, TrulySparseLinear)
            else seconds
        )
    isolated = 0, 0
    if isinstance(layer, TrulySparseLinear) and not layer.indices.is_meta:
        fans = layer.topology.fan_in(), layer.topology.fan_out()
        isolated = int((fans[0] == 0).sum()), int((fans[1] == 0).sum())
    return LayerSummary(
        name,
        sparse,
        shape,
        nnz,
        nnz / positions if positions else 0.0,
        numbers * weight.element_size(),
        now,
        *isolated,
        seconds_dense,
        seconds,
    )


def _packed_row(name: str, layer: PackedLinear) -> LayerSummary:
    shape = (layer.out_features, layer.in_features)
    positions = shape[0] * shape[1]
    numbers = positions + (shape[0] if layer.bias is not None else 0)
    return LayerSummary(
        name,
        sparse=True,
        shape=shape,
        nnz=layer.nnz,
        density=layer.nnz / positions if positions else 0.0,
        bytes_dense=4 * numbers,  # float32, which the layer computes in
        bytes=layer.nbytes,
        packed=layer.dtype,
    )


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes of what a tensor holds: of a sparse one (the adjacency of a graph) its parts."""
    if is_lazy(tensor):
        return 0
    if tensor.layout == torch.sparse_coo:
        return tensor._indices().nbytes + tensor._values().nbytes
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        return sum(part.nbytes for part in parts)
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
        return sum(part.nbytes for part in parts)
    return tensor.nbytes


def _measure(layer: nn.Linear | TrulySparseLinear, like: torch.Tensor, batch: int) -> float:
    """Median seconds of forward and backward, the input's gradient included; no .grad is left."""
    size = (batch, layer.in_features)
    input = torch.ones(size, dtype=like.dtype, device=like.device, requires_grad=True)
    wanted = [input, *(p for p in layer.parameters() if p.requires_grad)]
    times = []
    with torch.enable_grad():
        for _ in range(1 + _REPEATS):  # the first one warms up
            started = time.perf_counter()
            torch.autograd.grad(nn.Module.__call__(layer, input).sum(), wanted)
            times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    power = min((len(str(count)) - 1) // 3, len(_UNITS))
    return f"{count / 1000**power:.1f} {_UNITS[power - 1]}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g} ms"


def _table(head: list[str], lines: Iterable[list[str]], ends: Iterable[list[str]]) -> str:
    """Names to the left, figures to the right, a rule under the head and above the totals."""
    body, last = list(lines), list(ends)
    widths = [max(map(len, column)) for column in zip(head, *body, *last, strict=True)]

    def line(cells: list[str]) -> str:
        aligned = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(head), rule, *map(line, body), rule, *map(line, last)])
