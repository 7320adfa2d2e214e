"""Estimates the memory that a network will take, before any memory is taken."""

from __future__ import annotations

from pathlib import Path

from microarray_study.errors import InputError

from million_neurons_study.settings import Settings

# Bytes for each weight in float32 through all of training: the weight, its momentum, and two
# indices of 4 bytes; and its gradient, where there is an array of it.
SPARSE_WEIGHT = {"tts": 16, "torch": 20}
DENSE_WEIGHT = 12
# An evolution takes more bytes: for each weight of all layers, the plan (counted: 5); for each
# weight of the layer that changes, the next topology and the survivors (counted: 16).
PLANNED, AT_WORK = 5, 16
# For each unit of a layer's output: bias, its gradient and momentum, and a row pointer.
OUTPUT_UNIT = 20
# For each unit and sample of a batch: the outputs before and after the ReLU, and as many gradients.
ACTIVATION = 16
OTHER = 64 << 20  # freed blocks that the allocator keeps, and whatever else

MEMINFO = Path("/proc/meminfo")
# The limit and the use of a container: version 2 of control groups, then version 1.
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def bytes_needed(settings: Settings) -> int:
    """Return an upper estimate of the peak memory of building, training and evolving."""
    layers = settings.layers()
    sparse = [layer.weights for layer in layers if not layer.is_dense]
    dense = [layer.weights for layer in layers if layer.is_dense]
    evolving = PLANNED * sum(sparse) + AT_WORK * max(sparse, default=0)
    return (
        SPARSE_WEIGHT[settings.optimizer] * sum(sparse)
        + DENSE_WEIGHT * sum(dense)
        + (evolving if settings.epochs > 1 else 0)
        + OUTPUT_UNIT * sum(settings.units)
        + ACTIVATION * settings.batch_size * sum(settings.units)
        + 12 * settings.samples * settings.inputs  # the data, once raw and once in two parts
        + OTHER
    )


def bytes_available() -> int | None:
    """Return the bytes that this process may still take; None if the system does not say."""
    rooms = []
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                rooms.append(int(line.split()[1]) * 1024)
    for limit, used in GROUPS:
        try:
            rooms.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return min(rooms, default=None)


def check_memory(settings: Settings) -> None:
    """Raise `InputError`, before anything is allocated, if the network would not fit."""
    needed, available = bytes_needed(settings), bytes_available()
    if available is not None and needed > available:
        weights = sum(layer.weights for layer in settings.layers())
        raise InputError(
            f"{settings.neurons:,} neurons and {weights:,} weights need about {needed:,} bytes "
            f"({needed / 1e9:.1f} GB), and {available:,} ({available / 1e9:.1f} GB) are available; "
            "lower --hidden, --hidden-layers or --epsilon"
        )
