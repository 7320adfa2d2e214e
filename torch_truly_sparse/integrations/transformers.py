"""Sparse models of Hugging Face: saved, loaded and evolved by the functions of that library."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from .._arguments import as_int
from ..convert import sparsify as sparsify_linear
from ..convert.pretrained import mark_sparse
from ..evolution.sparse_evolution import SparseEvolution
from ..nn import TrulySparseLinear
from .logger import SparsityLogger

try:
    from transformers import (
        PreTrainedModel,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as error:
    raise ImportError(
        "torch_truly_sparse.integrations.transformers needs transformers: "
        "pip install 'torch_truly_sparse[transformers]'"
    ) from error

__all__ = ["EvolutionCallback", "SparsityConfig", "record_sparsity", "sparsify"]

METHOD = "truly_sparse"
EVOLUTION = "evolution.pt"
INITIALIZED = "_is_hf_initialized"  # the attribute by which transformers knows what it has loaded


def sparsify(model: PreTrainedModel, *, inplace: bool = False, **settings: Any) -> PreTrainedModel:
    """Make the linear layers of a pretrained model truly sparse, those of GPT-2 among them.

    `tts.sparsify`, and beside it: layers of the class `Conv1D` (GPT-2), which are linear layers
    with a transposed weight, are replaced, too; and the model's configuration records what is
    sparse, so that `save_pretrained` and `from_pretrained` work as with a dense model.

    Args:
        model: the model.
        inplace: change the model itself; otherwise a copy is converted.
        settings: as for `tts.sparsify`: `density=`, `init=`, `exclude=` and so on.

    Returns:
        The converted model.

    Raises:
        TypeError, ValueError: as for `tts.sparsify`; the model is as it was.

    Cost: as for `tts.sparsify`, and a copy of the weights of `Conv1D` layers.

    `from_pretrained` needs this module: import `torch_truly_sparse.integrations.transformers`
    first, or it raises an error that names the unknown method "truly_sparse".
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"`model` must be a transformers.PreTrainedModel, got {type(model).__name__}; for any "
            "other model there is tts.sparsify"
        )
    transposed = {
        name: module for name, module in model.named_modules() if isinstance(module, Conv1D)
    }
    converted = model if inplace else copy.deepcopy(model)
    originals = {name: converted.get_submodule(name) for name in transposed}
    for name, module in originals.items():
        converted.set_submodule(name, _linear(module))
    try:
        sparse = sparsify_linear(converted, inplace=True, **settings)
    except BaseException:
        for name, module in originals.items():
            converted.set_submodule(name, module)
        raise
    for name, module in originals.items():  # those that stay dense stay as they were
        if not isinstance(sparse.get_submodule(name), TrulySparseLinear):
            sparse.set_submodule(name, module)
    return record_sparsity(cast(PreTrainedModel, sparse))


def record_sparsity(model: PreTrainedModel) -> PreTrainedModel:
    """Write into the configuration of a model which of its layers are sparse.

    `sparsify` of this module does so by itself. Call it where a model was made sparse in another
    way, or where an evolution has changed the number of connections of a layer, before
    `save_pretrained`.

    Args:
        model: a model with sparse layers.

    Returns:
        The model.

    Raises:
        ValueError: it has no sparse layers, or is quantized.
    """
    layers = {
        name: module.nnz
        for name, module in model.named_modules()
        if isinstance(module, TrulySparseLinear)
    }
    if not layers:
        raise ValueError("`model` has no truly sparse layer to record")
    present = getattr(model.config, "quantization_config", None)
    if present is not None and not isinstance(present, SparsityConfig):
        raise ValueError("`model` is quantized: its configuration cannot record sparse layers, too")
    model.config.quantization_config = config = SparsityConfig(layers)
    model.__dict__["hf_quantizer"] = _SparseLoader(config)
    return model


def _linear(module: nn.Module) -> nn.Linear:
    """Return the linear layer that a `Conv1D` is; its weight is the other way round."""
    weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
    in_features, out_features = weight.shape
    linear: nn.Linear = nn.utils.skip_init(
        nn.Linear, in_features, out_features, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        linear.weight.copy_(weight.t())
        linear.bias.copy_(bias)
    linear.weight.requires_grad_(weight.requires_grad)
    linear.bias.requires_grad_(bias.requires_grad)
    return linear.train(module.training)


@register_quantization_config(METHOD)
class SparsityConfig(QuantizationConfigMixin):
    """Which layers of a saved model are sparse; transformers keeps it where it keeps quantization.

    Args:
        layers: the number of connections of each sparse layer, by the layer's name.
    """

    def __init__(self, layers: Mapping[str, int] | None = None, **_: Any) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.layers = dict(layers or {})


@register_quantizer(METHOD)
class _SparseLoader(HfQuantizer):
    """Puts sparse layers into a model on `meta`, before `from_pretrained` reads the weights."""

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, **_: Any
    ) -> PreTrainedModel:
        self._names: list[str] = []
        config = cast(SparsityConfig, self.quantization_config)
        for saved, nnz in config.layers.items():
            name = _name_in(model, saved)
            if name is None:
                continue
            layer = _sparse_like(model.get_submodule(name), nnz)
            layer.__class__ = _Loading
            layer.__dict__[INITIALIZED] = True  # or its weights would be drawn anew
            model.set_submodule(name, layer)
            self._names.append(name)
        return model

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **_: Any
    ) -> PreTrainedModel:
        for name in self._names:
            layer = cast(TrulySparseLinear, model.get_submodule(name))
            layer.__class__ = TrulySparseLinear
            if layer.values.is_meta or layer.indices.is_meta:
                raise ValueError(f"the file holds no topology for the sparse layer {name!r}")
            layer.topology  # noqa: B018 (checks it)
            del layer.__dict__[INITIALIZED]
        return record_sparsity(model)

    def get_state_dict_and_metadata(
        self, model: PreTrainedModel
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Mark sparse layers, so that a class that knows nothing of them refuses the file."""
        return mark_sparse(model, model.state_dict()), {}

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return True


class _Loading(TrulySparseLinear):
    """A layer while a model is loaded: modules that hold it may look at its weight's flag."""

    @property
    def weight(self) -> torch.Tensor:
        """Stands for weights that need no drawing."""
        held = torch.empty(0)
        setattr(held, INITIALIZED, True)
        return held


def _name_in(model: PreTrainedModel, saved: str) -> str | None:
    """Return the name that a saved layer has in a model with a head, or without.

    Returns:
        The name, or None for a layer of a head, where the model has none.

    Raises:
        ValueError: the model has no such layer.
    """
    prefix = model.base_model_prefix + "."
    for name in (saved, saved.removeprefix(prefix), prefix + saved):
        try:
            model.get_submodule(name)
        except AttributeError:
            continue
        return name
    if model.base_model is model and not saved.startswith(prefix):
        return None
    raise ValueError(
        f"the configuration says that {saved!r} is sparse, and the model has no such layer: load "
        "it with the class that saved it"
    )


def _sparse_like(dense: nn.Module, nnz: int) -> TrulySparseLinear:
    """Return a sparse layer on `meta` of the sizes of a dense one.

    Raises:
        ValueError: it is no linear layer.
    """
    if not isinstance(dense, nn.Linear | Conv1D):
        raise ValueError(
            "the configuration says that a layer is sparse, and in the model it is a "
            f"{type(dense).__name__}: load it with the class that saved it"
        )
    weight = dense.get_parameter("weight")
    shape = weight.shape if isinstance(dense, nn.Linear) else weight.shape[::-1]
    return TrulySparseLinear(
        shape[1],
        shape[0],
        dense.bias is not None,
        nnz=nnz,
        device="meta",
        dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32,
    )


class EvolutionCallback(TrainerCallback):
    """Evolves the sparse layers of a model while `Trainer.train` trains it.

    The evolution is made when training begins. Its state is written into every checkpoint folder
    (`evolution.pt`) and read from there when training is resumed, so that a resumed training equals
    one that never stopped, bit for bit.

    Args:
        method: `tts.SparseEvolution`, `tts.SET`, `tts.RigL`, `tts.MEST`, `tts.SparseMomentum`, or a
            function that takes a model, an optimizer and the settings and returns an evolution.
        every: optimizer steps between evolutions, or `"epoch"` for as many as an epoch has.
        logger: a `SparsityLogger` of `torch_truly_sparse.integrations.logger`, or None.
        settings: for `method`. `total_steps`, where the method asks for it and it is not given, is
            the number of optimizer steps of the training.

    Attributes:
        evolution: the evolution of the present or last training, or None before the first.

    Raises:
        TypeError, ValueError: when training begins: as `method`; or training is resumed from a
            checkpoint whose folder `args.output_dir/checkpoint-STEP` holds no `evolution.pt`.

    Example:
        >>> from torch_truly_sparse import SET
        >>> callback = EvolutionCallback(SET, every="epoch")
        >>> # transformers.Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
    """

    def __init__(
        self,
        method: Callable[..., SparseEvolution] = SparseEvolution,
        *,
        every: int | str = "epoch",
        logger: SparsityLogger | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(every, str) and every != "epoch":
            raise ValueError(
                f'`every` must be "epoch" or a number of optimizer steps, got {every!r}'
            )
        self._method = method
        self._every = every if isinstance(every, str) else as_int(every, "every", least=1)
        self._logger = logger
        self._settings = settings
        self.evolution: SparseEvolution | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Make the evolution, and give it its saved state if training is resumed."""
        settings = dict(self._settings)
        if isinstance(self._every, str):
            batches = len(given["train_dataloader"])
            settings["every"] = max(1, math.ceil(batches / args.gradient_accumulation_steps))
        else:
            settings["every"] = self._every
        wanted = inspect.signature(self._method).parameters
        if "total_steps" in wanted:
            settings.setdefault("total_steps", state.max_steps)
        self._end()
        self.evolution = self._method(given["model"], given["optimizer"], **settings)
        if self._logger is not None and state.is_world_process_zero:
            self._logger.attach(self.evolution)
        if state.global_step:
            path = _folder(args, state) / EVOLUTION
            if not path.exists():
                raise ValueError(
                    f"training is resumed after step {state.global_step}, and {path} does not "
                    "exist: the evolution would begin anew. Resume with the `output_dir` that the "
                    "checkpoint was written to, by a Trainer with this callback"
                )
            self.evolution.load_state_dict(torch.load(path, weights_only=True))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the state of the evolution into the checkpoint that has just been written."""
        folder = _folder(args, state)
        if self.evolution is not None and state.is_world_process_zero and folder.is_dir():
            temporary = folder / f"{EVOLUTION}.part"
            torch.save(self.evolution.state_dict(), temporary)
            temporary.replace(folder / EVOLUTION)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the evolution off the optimizer; its history stays."""
        self._end()

    def _end(self) -> None:
        if self.evolution is not None:
            self.evolution.remove()


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
