"""The table of a model's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_truly_sparse as tts


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30), nn.Linear(30, 5, bias=False))
    net.append(net[2])
    return tts.sparsify(net, density=0.1, exclude=["2"])


def test_a_row_for_each_layer_before_and_after():
    summary = tts.summary(model())
    sparse, dense = summary.rows
    assert (sparse.name, sparse.sparse, sparse.shape) == ("0", True, (30, 20))
    assert (dense.name, dense.sparse, dense.shape) == ("2", False, (5, 30))
    assert (sparse.nnz, sparse.density) == (60, 0.1)
    assert (dense.nnz, dense.density) == (150, 1.0)
    assert sparse.bytes_dense == 4 * (600 + 30)
    assert sparse.bytes == 60 * (4 + 8) + 4 * 30
    assert dense.bytes == dense.bytes_dense == 4 * 150
    assert summary.other_bytes == 4 * 60
    assert summary.nnz == 210
    assert summary.density == 210 / 750
    assert summary.bytes == sparse.bytes + dense.bytes + 240
    assert summary.bytes_dense == sparse.bytes_dense + dense.bytes_dense + 240
    assert sparse.seconds is sparse.seconds_dense is summary.batch is None


def test_bytes_are_those_of_all_parameters_and_buffers():
    net = model().double()
    tensors = {id(t): t for t in (*net.parameters(), *net.buffers())}
    assert tts.summary(net).bytes == sum(t.nbytes for t in tensors.values())


def test_it_prints_as_a_table_of_one_width():
    lines = str(tts.summary(model())).splitlines()
    assert " ".join(lines[0].split()) == "layer kind out x in nnz density dense now"
    assert " ".join(lines[2].split()) == "0 sparse 30 x 20 60 10.000% 2.5 kB 840 B"
    assert " ".join(lines[-1].split()) == "total 210 28.000% 3.4 kB 1.7 kB"
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("size", "shown"), [(100, "80.8 kB"), (100_000, "80.0 GB"), (10**8, "80000.0 TB")]
)
def test_sizes_read_well_and_need_no_memory(size, shown):
    with torch.device("meta"):
        net = nn.Linear(size, 2 * size)
    assert shown in str(tts.summary(net))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_times_are_measured_on_request_and_leave_no_trace(dtype):
    net = model().to(dtype)
    net[2].weight.requires_grad_(False)
    summary = tts.summary(net, batch=3)
    assert summary.batch == 3
    for row in summary.rows:
        assert row.seconds > 0
        assert row.seconds_dense > 0
    assert summary.rows[1].seconds == summary.rows[1].seconds_dense
    assert all(parameter.grad is None for parameter in net.parameters())
    lines = str(summary).splitlines()
    assert lines[0].split()[-3:] == ["dense", "time", "time"]
    assert all(line.endswith(" ms") for line in (lines[2], lines[3], lines[-1]))


def test_a_model_without_linear_layers_has_an_empty_table():
    summary = tts.summary(nn.LayerNorm(3))
    assert summary.rows == ()
    assert summary.density == 0
    assert summary.bytes == 24
    assert "everything else" in str(summary)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_a_sparse_buffer_counts_what_it_holds(layout):
    net = nn.Sequential(nn.Linear(4, 4))
    adjacency = torch.eye(6)
    held = {
        "coo": (adjacency.to_sparse, 6 * (2 * 8 + 4)),
        "csr": (adjacency.to_sparse_csr, 7 * 8 + 6 * (8 + 4)),
        "csc": (adjacency.to_sparse_csc, 7 * 8 + 6 * (8 + 4)),
        "bsr": (lambda: adjacency.to_sparse_bsr((2, 2)), 4 * 8 + 3 * (8 + 16)),
    }
    make, size = held[layout]
    net.register_buffer("adjacency", make())
    assert tts.summary(net).other_bytes == size
    assert tts.summary(tts.sparsify(net, density=0.5, inplace=True)).other_bytes == size


def test_other_lazy_modules_hold_nothing_yet():
    assert tts.summary(nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d())).bytes == 80 + 8


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], None), TypeError, "`model` must be an nn.Module, got list"),
        ((nn.Linear(2, 2), 0), ValueError, "`batch` must be at least 1, got 0"),
        ((nn.Linear(2, 2), 2.0), TypeError, "`batch` must be an int, got float"),
        ((nn.Sequential(nn.LazyLinear(2)), None), ValueError, "'0' is a LazyLinear whose size is"),
        ((nn.Linear(2, 2, device="meta"), 2), ValueError, "is on the meta device and cannot be"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    net, batch = arguments
    with pytest.raises(error, match=message):
        tts.summary(net, batch=batch)
