"""Checkpoints of whole models: other formats, and states that are loaded entirely or not at all."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from oracles import OperatorLog, all_same_bits, same_bits
from small_layers import seeded
from torch import Tensor, nn

from torch_truly_sparse import MaskedLinear, TrulySparseLinear, sparsify
from torch_truly_sparse.nn import StateDictError, check_state_dict, load_all_or_nothing

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of torch.distributed.checkpoint
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
]


def network(seed: int = 0, nnz: int = 60, kind: type = TrulySparseLinear) -> nn.Sequential:
    g = seeded(seed)
    torch.manual_seed(seed)
    return nn.Sequential(
        kind(20, 30, nnz=nnz, generator=g),
        nn.BatchNorm1d(30),
        nn.Linear(30, 8),
        kind(8, 10, nnz=40, generator=g),
    )


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


CORRUPT = {
    "out of range": ("3.indices", lambda t: t + 30, r"layer '3': `indices.* is outside"),
    "unsorted": ("3.indices", lambda t: t.flip(1), "layer '3': `indices` must be sorted"),
    "duplicate": ("3.indices", lambda t: t[:, :1].expand(2, 40), "unique"),
    "no integers": ("3.indices", lambda t: t.float(), "int32 or int64"),
    "too few values": ("3.values", lambda t: t[1:], "`3.values` must have shape"),
    "bias": ("3.bias", lambda t: t[1:], "`3.bias` must have shape"),
    "dense": ("2.weight", lambda t: t.t(), r"`2.weight` must have shape \(8, 30\), got \(30, 8\)"),
    "buffer": ("1.running_mean", lambda t: t[1:], "`1.running_mean` must have shape"),
    "no tensor": ("2.bias", lambda t: t.tolist(), "`2.bias` must be a torch.Tensor, got list"),
}


@pytest.mark.parametrize(("key", "change", "text"), CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}], ids=str)
def test_nothing_of_a_corrupt_state_is_loaded(key, change, text, options):
    model, state = network(), copied(network(5, nnz=50))
    state[key] = change(state[key])
    load_all_or_nothing(model)
    before, values = copied(model), model[0].values
    with pytest.raises(ValueError, match=text):
        model.load_state_dict(state, **options)
    with pytest.raises(ValueError, match="nothing of it was loaded"):
        check_state_dict(model, state)
    assert all_same_bits(copied(model), before)
    assert model[0].values is values


def test_all_that_does_not_fit_is_listed():
    model, state = network(), copied(network(5))
    state["0.indices"], state["2.bias"] = state["0.indices"] + 30, torch.ones(3)
    del state["3.values"]
    with pytest.raises(
        ValueError, match=r"(?s)layer '0': `indices.*`2.bias`.*`3.values` is missing"
    ):
        check_state_dict(model, state)


@pytest.mark.parametrize("kind", [TrulySparseLinear, MaskedLinear])
def test_a_state_that_fits_is_loaded_as_ever(kind):
    saved, model = network(5, kind=kind), network(kind=kind)
    handle = load_all_or_nothing(model)
    model.load_state_dict(copied(saved))
    assert all_same_bits(copied(model), copied(saved))
    assert not model.load_state_dict({"2.bias": torch.ones(8)}, strict=False).unexpected_keys
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"2.bias": torch.ones(8)})
    handle.remove()
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict({**copied(saved), "2.bias": torch.ones(7)})


@pytest.mark.parametrize(
    "make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: nn.Sequential(m)]
)
def test_the_check_travels_with_the_model(make):
    model = network()
    load_all_or_nothing(model)
    model = make(model)
    state = copied(model)
    key = next(k for k in reversed(state) if k.endswith("indices"))
    before, state = state, {**state, key: state[key].flip(1)}
    with pytest.raises(ValueError, match="nothing of it was loaded"):
        model.load_state_dict(state)
    assert all_same_bits(copied(model), before)


@pytest.mark.parametrize("inplace", [False, True])
def test_sparsified_models_check_by_themselves(inplace):
    dense = nn.Sequential(nn.Linear(9, 9), nn.BatchNorm1d(9), nn.Linear(9, 9))
    model = sparsify(dense, density=0.3, inplace=inplace)
    state = copied(model)
    before = {**state, "0.values": state["0.values"] + 1, "1.weight": state["1.weight"] + 1}
    model.load_state_dict(before)
    with pytest.raises(StateDictError, match=r"layer '2'.*`indices` must be sorted"):
        model.load_state_dict({**state, "2.indices": state["2.indices"].flip(1)})
    with pytest.raises(RuntimeError, match=r"`1.weight` must have shape"):  # as torch's own
        model.load_state_dict({**state, "1.weight": state["1.weight"][1:]})
    assert all_same_bits(copied(model), before)


def test_a_model_is_checked_once_however_often_it_is_asked_for():
    model = sparsify(nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)), density=0.3, exclude=["1"])
    model = sparsify(model, density=0.3)
    handle = load_all_or_nothing(model)
    assert len(model._load_state_dict_pre_hooks) == 1
    handle.remove()
    assert not model._load_state_dict_pre_hooks


def test_a_sparsified_part_does_not_hide_its_shapes_from_the_whole():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(9, 9), nn.Parameter(torch.ones(9))

    model = nn.Sequential(sparsify(Part(), density=0.3))
    state = copied(model)
    with pytest.raises(StateDictError, match=r"`0.scale` must have shape"):
        check_state_dict(model, {**state, "0.scale": torch.ones(8)})


def test_masks_of_another_shape_are_found():
    model, state = network(kind=MaskedLinear), copied(network(5, kind=MaskedLinear))
    state["3.mask"] = state["3.mask"].t()
    with pytest.raises(ValueError, match=r"`3.mask` must have shape \(10, 8\)"):
        check_state_dict(model, state)


# Other formats


def test_safetensors(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch")
    saved, receiver = network(5, nnz=50), network()
    safetensors.save_model(saved, str(tmp_path / "model.safetensors"))
    assert safetensors.load_model(receiver, str(tmp_path / "model.safetensors")) == (set(), [])
    assert all_same_bits(copied(receiver), copied(saved))
    receiver = network()
    receiver.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"), assign=True)
    assert all_same_bits(copied(receiver), copied(saved))
    receiver(torch.ones(4, 20)).sum().backward()


def test_distributed_checkpoint_of_one_process(tmp_path: Path):
    saved, receiver = network(5), network()
    dcp.save(saved.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    receiver(torch.ones(4, 20))
    state = receiver.state_dict()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    receiver.load_state_dict(state)
    assert all_same_bits(copied(receiver), copied(saved))
    x = torch.randn(4, 20)
    assert same_bits(receiver.eval()(x), saved.eval()(x))


def test_distributed_checkpoint_of_another_number_of_connections(tmp_path: Path):
    saved, receiver = network(5, nnz=50), network()
    dcp.save(saved.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises(dcp.CheckpointException, match="Size mismatch"):
        dcp.load(receiver.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    metadata = dcp.FileSystemReader(tmp_path).read_metadata().state_dict_metadata
    state = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in metadata.items()
    }
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    receiver.load_state_dict(state)
    assert all_same_bits(copied(receiver), copied(saved))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_through_meta_and_into_another_dtype(dtype):
    saved = network(5, nnz=50)
    receiver = network().to("meta").to_empty(device="cpu").to(dtype)
    receiver.load_state_dict(copied(saved))
    assert torch.equal(receiver[0].indices, saved[0].indices)
    torch.testing.assert_close(receiver[0].values, saved[0].values.to(dtype))
    receiver(torch.ones(4, 20, dtype=dtype)).sum().backward()


def test_a_loaded_topology_is_checked_once():
    saved, receiver = network(5), network()
    with OperatorLog() as ran:
        receiver.load_state_dict(saved.state_dict())
        receiver(torch.ones(4, 20))
    assert ran.names.count("compress") == 2
