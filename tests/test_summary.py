"""The table of a model's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import Topology, TrulySparseLinear


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30), nn.Linear(30, 5, bias=False))
    net.append(net[2])
    return tts.sparsify(net, density=0.1, exclude=["2"])


def all_connected() -> TrulySparseLinear:
    """A layer in which each unit has a connection."""
    places = torch.arange(60)
    topology = Topology.from_positions((places % 30 * 20 + places % 20).unique(), (30, 20))
    assert topology.nnz == 60
    return TrulySparseLinear.from_topology(topology, torch.ones(60), torch.zeros(30))


def test_units_that_nothing_goes_through_are_counted():
    indices = torch.tensor([[0, 0, 2], [1, 4, 1]])
    layer = TrulySparseLinear.from_topology(Topology.from_indices(indices, (4, 6)), torch.ones(3))
    summary = tts.summary(nn.Sequential(layer))
    assert summary.rows[0].isolated_outputs == 2
    assert summary.rows[0].isolated_inputs == 4
    assert str(summary).endswith(
        "0: 2 output units without an input, 4 input units that nothing reads"
    )
    whole = tts.summary(nn.Sequential(all_connected()))
    assert whole.rows[0].isolated_outputs == whole.rows[0].isolated_inputs == 0
    assert "without" not in str(whole)


def test_a_row_for_each_layer_before_and_after():
    summary = tts.summary(model())
    sparse, dense = summary.rows
    assert (sparse.name, sparse.sparse, sparse.shape) == ("0", True, (30, 20))
    assert (dense.name, dense.sparse, dense.shape) == ("2", False, (5, 30))
    assert (sparse.nnz, sparse.density) == (60, 0.1)
    assert (dense.nnz, dense.density) == (150, 1.0)
    assert sparse.bytes_dense == 4 * (600 + 30)
    assert sparse.bytes == 60 * (4 + 8) + 4 * 30 + 192  # the last: the seal
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
    net = model()
    net[0] = all_connected()
    lines = str(tts.summary(net)).splitlines()
    assert " ".join(lines[0].split()) == "layer kind out x in nnz density dense now"
    assert " ".join(lines[2].split()) == "0 sparse 30 x 20 60 10.000% 2.5 kB 1.0 kB"
    assert " ".join(lines[-1].split()) == "total 210 28.000% 3.4 kB 1.9 kB"
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
    lines = [line for line in str(summary).splitlines() if "units without" not in line]
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
