"""Inside Lightning's own loop: a network evolves as in a plain one, and ranks stay equal."""

from __future__ import annotations

import pytest
from processes import run_python
from several_ranks import needs_gloo

pytest.importorskip("lightning")

PROGRAM = """
import logging, sys, warnings
warnings.simplefilter("ignore")
logging.getLogger("lightning").setLevel(logging.ERROR)
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset
import torch_truly_sparse as tts

torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
x, y = torch.randn(96, 30, generator=g), torch.randn(96, 4, generator=g)

def network():
    g = torch.Generator().manual_seed(1)
    return torch.nn.Sequential(
        tts.TrulySparseLinear(30, 20, nnz=120, generator=g),
        torch.nn.ReLU(),
        tts.TrulySparseLinear(20, 4, nnz=40, generator=g),
    )

class Module(L.LightningModule):
    def __init__(self, prepare=False):
        super().__init__()
        self.network, self.prepare = network(), prepare

    def training_step(self, batch, _):
        return (self.network(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        if self.prepare:
            tts.distributed.prepare(self)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        self.evolution = tts.SparseEvolution(
            self, optimizer, prune="magnitude", regrow="gradient", every=3,
            generator=torch.Generator().manual_seed(2),
        )
        return optimizer

def fit(module, **settings):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=4, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=16, shuffle=False))
"""


def run(program, folder):
    return run_python("-c", PROGRAM + program, cwd=folder)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_fit_does_what_a_plain_loop_does(accumulated, tmp_path):
    program = f"""
module = Module()
fit(module, accumulate_grad_batches={accumulated})
plain = network()
optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
evolution = tts.SparseEvolution(
    plain, optimizer, prune="magnitude", regrow="gradient", every=3,
    generator=torch.Generator().manual_seed(2),
)
for epoch in range(4):
    for first in range(0, 96, 16 * {accumulated}):
        optimizer.zero_grad()
        for at in range(first, first + 16 * {accumulated}, 16):
            loss = (plain(x[at : at + 16]) - y[at : at + 16]).square().mean() / {accumulated}
            loss.backward()
        optimizer.step()
assert len(evolution.history) == len(module.evolution.history) > 2
for a, b in zip(plain.state_dict().values(), module.network.state_dict().values(), strict=True):
    assert torch.equal(a, b)
print("equal")
"""
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("equal")


@needs_gloo
def test_ranks_with_a_module_that_was_not_prepared_are_refused(tmp_path):
    done = run('fit(Module(), strategy="ddp_fork", devices=2)', tmp_path)
    assert done.returncode != 0
    assert "tts.distributed.prepare" in done.stderr


@needs_gloo
def test_ranks_with_a_prepared_module_stay_equal(tmp_path):
    program = """
class Checked(Module):
    def on_train_end(self):
        import torch.distributed as dist
        assert len(self.evolution.history) > 2
        for tensor in self.network.state_dict().values():
            both = [torch.empty_like(tensor) for _ in range(2)]
            dist.all_gather(both, tensor.contiguous())
            assert torch.equal(*both)
        print("equal", flush=True)

fit(Checked(prepare=True), strategy="ddp_fork", devices=2)
"""
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 2
