"""`integrations.lightning.EvolutionCallback` in Lightning's own loop, resume included."""

from __future__ import annotations

import pytest
from processes import run_python
from several_ranks import needs_gloo

pytest.importorskip("lightning")

PROGRAM = """
import logging, sys, warnings
warnings.simplefilter("ignore")
logging.getLogger("lightning").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import lightning as L
import torch
from lightning.pytorch import callbacks
from torch.utils.data import DataLoader, TensorDataset
import torch_truly_sparse as tts
from torch_truly_sparse.integrations.lightning import EvolutionCallback
from torch_truly_sparse.integrations.logger import SparsityLogger

torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
x, y = torch.randn(100, 30, generator=g), torch.randn(100, 4, generator=g)
data = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=False)  # 7 batches

def seeded(seed=2):
    return torch.Generator().manual_seed(seed)

def network():
    g = seeded(1)
    return torch.nn.Sequential(
        tts.TrulySparseLinear(30, 20, nnz=120, generator=g),
        torch.nn.ReLU(),
        tts.TrulySparseLinear(20, 4, nnz=40, generator=g),
    )

class Module(L.LightningModule):
    def __init__(self, optimizer=torch.optim.SGD):
        super().__init__()
        self.network, self.optimizer = network(), optimizer

    def training_step(self, batch, _):
        return (self.network(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), lr=0.05, momentum=0.9)

def trainer(*added, epochs=4, **settings):
    settings = {"enable_checkpointing": False, **settings}
    return L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, callbacks=list(added),
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )

def same(one, other):
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)

def plain(method, every, accumulated=1, epochs=4, optimizer=torch.optim.SGD, **settings):
    model = network()
    optimizer = optimizer(model.parameters(), lr=0.05, momentum=0.9)
    evolution = method(model, optimizer, every=every, generator=seeded(), **settings)
    for epoch in range(epochs):
        batches = list(data)
        for first in range(0, len(batches), accumulated):
            optimizer.zero_grad()
            for a, b in batches[first : first + accumulated]:
                ((model(a) - b).square().mean() / accumulated).backward()
            optimizer.step()
    return model, evolution

def refused(text, run):
    try:
        run()
    except (ValueError, TypeError) as error:
        assert text in str(error), error
    else:
        raise AssertionError("accepted")
"""


def run(program, folder):
    done = run_python("-c", PROGRAM + program, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("method", "settings"),
    [("SET", ""), ("RigL", "total_steps=28"), ("MEST", "total_steps=28")],
)
def test_a_fit_does_what_a_plain_loop_does(method, settings, tmp_path):
    run(
        f"""
module, callback = Module(), EvolutionCallback(tts.{method}, generator=seeded())
trainer(callback).fit(module, data)
model, evolution = plain(tts.{method}, 7, {settings})
same(module.network, model)
assert len(callback.evolution.history) > 1
assert [r.step for r in callback.evolution.history] == [r.step for r in evolution.history]
""",
        tmp_path,
    )


def test_accumulated_batches_count_once(tmp_path):
    run(
        """
written = set()
logger = SparsityLogger(lambda name, value, step: written.add(step))
module, callback = Module(), EvolutionCallback(tts.SET, generator=seeded(), logger=logger)
trainer(callback, accumulate_grad_batches=2).fit(module, data)
assert written == {record.step for record in callback.evolution.history}
assert callback.evolution.every == 4
assert callback.evolution.steps == 16
assert len(callback.evolution.history) == 3
""",
        tmp_path,
    )


@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", "tts.optim.SGD"])
@pytest.mark.parametrize("method", ["SET", "RigL", "SparseMomentum"])
def test_a_resumed_fit_equals_one_that_never_stopped(method, optimizer, tmp_path):
    """Saved after an epoch, in the middle of an interval between evolutions."""
    run(
        f"""
def callback():
    return EvolutionCallback(tts.{method}, every=5, generator=seeded())

whole, first = Module({optimizer}), callback()
keep = callbacks.ModelCheckpoint(".", "at-{{epoch}}", save_top_k=-1, every_n_epochs=1)
trainer(first, keep, enable_checkpointing=True).fit(whole, data)
resumed, second = Module({optimizer}), callback()
trainer(second).fit(resumed, data, ckpt_path="at-epoch=1.ckpt", weights_only=False)
same(whole, resumed)
assert second.evolution.steps == 28
assert first.evolution.history == second.evolution.history
assert len(second.evolution.history) > 2
""",
        tmp_path,
    )


def test_half_precision_and_the_learning_rate_finder(tmp_path):
    run(
        """
module, callback = Module(), EvolutionCallback(tts.SET, generator=seeded())
module.lr = 0.05
fitting = trainer(callback, precision="bf16-mixed", max_steps=28, epochs=-1)
before = module.network[0].indices.clone()
L.pytorch.tuner.Tuner(fitting).lr_find(module, data, num_training=20, update_attr=False)
assert torch.equal(module.network[0].indices, before)  # it does not evolve
fitting.fit(module, data)
assert len(callback.evolution.history) == 3
assert module.network[0].values.dtype == torch.float32
""",
        tmp_path,
    )


def test_a_second_fit_begins_anew(tmp_path):
    run(
        """
module, callback = Module(), EvolutionCallback(tts.SET, generator=seeded())
trainer(callback).fit(module, data)
first = callback.evolution
trainer(callback).fit(module, data)
assert callback.evolution is not first
assert len(callback.evolution.history) == len(first.history) == 3
""",
        tmp_path,
    )


def test_what_cannot_go_together_is_refused(tmp_path):
    run(
        """
class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(x, y))

endless = DataLoader(Endless(), batch_size=16)

def fit(*added, loader=data, optimizer=torch.optim.SGD, **settings):
    return lambda: trainer(*added, **settings).fit(Module(optimizer), loader)

evolve = EvolutionCallback(tts.SET)
swa = callbacks.StochasticWeightAveraging(swa_lrs=0.01)
refused("tts.nn.AveragedModel", fit(evolve, swa))
if hasattr(callbacks, "EMAWeightAveraging"):
    refused("tts.nn.AveragedModel", fit(evolve, callbacks.EMAWeightAveraging()))
refused("no fixed number of optimizer steps", fit(evolve, loader=endless, max_steps=9))
changing = callbacks.GradientAccumulationScheduler({0: 1, 2: 2})
refused("no fixed number of optimizer steps", fit(evolve, changing))
refused("`optimizer` is 3", fit(EvolutionCallback(tts.SET, optimizer=3)))
refused("clip_value", fit(evolve, optimizer=tts.optim.SGD, gradient_clip_val=1.0))
refused("`every` must be", lambda: EvolutionCallback(tts.SET, every="step"))
refused("`every` must be at least 1", lambda: EvolutionCallback(tts.SET, every=0))
refused("`method` must be", lambda: EvolutionCallback("SET"))
fit(EvolutionCallback(tts.SET, every=5), loader=endless, max_steps=9)()
""",
        tmp_path,
    )


@needs_gloo
@pytest.mark.parametrize(
    "method",
    ["tts.SET", "tts.RigL", 'tts.SparseEvolution, regrow="momentum"'],
    ids=lambda m: m[-9:],
)
def test_ranks_stay_equal_and_resume_alike(method, tmp_path):
    """A fit of two processes, stopped and resumed, equals one that never stopped."""
    run(
        f"""
from lightning.pytorch.strategies import DDPStrategy

def fit(module, *added, **settings):
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork")
    fitting = trainer(
        EvolutionCallback({method}, every=3, generator=seeded()), *added,
        devices=2, strategy=strategy, enable_checkpointing=bool(added), **settings,
    )
    fitting.fit(module, data, weights_only=False, ckpt_path=settings_path)
    return fitting

class Kept(L.Callback):
    def on_train_end(self, trainer, module):
        gathered = [None, None]
        torch.distributed.all_gather_object(gathered, module.state_dict())
        for a, b in zip(gathered[0].values(), gathered[1].values(), strict=True):
            assert torch.equal(a, b)
        if trainer.global_rank == 0:
            torch.save(module.state_dict(), name)

keep = callbacks.ModelCheckpoint(".", "at-{{epoch}}", save_top_k=-1, every_n_epochs=1)
settings_path, name = None, "whole.pt"
fit(Module(), keep, Kept())
settings_path, name = "at-epoch=1.ckpt", "resumed.pt"
fit(Module(), Kept())
whole, resumed = torch.load("whole.pt"), torch.load("resumed.pt")
assert not torch.equal(whole["network.0.indices"], network().state_dict()["0.indices"])
for a, b in zip(whole.values(), resumed.values(), strict=True):
    assert torch.equal(a, b)
""",
        tmp_path,
    )
