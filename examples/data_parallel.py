"""Train one sparse network on several processes, then a copy on each, then merge the copies.

    python data_parallel.py                                    # 2 ranks, some seconds
    python data_parallel.py --ranks 4 --epochs 20 --regrow gradient
    python data_parallel.py --kill-after 3                     # a rank dies; the others go on
    torchrun --nproc-per-node 2 data_parallel.py
    torchrun --nproc-per-node 2 --max-restarts 1 data_parallel.py --checkpoints run --kill-after 3

Phase 1, 70 % of the epochs: `DistributedDataParallel`, and one topology that evolves on all ranks
at once. Phase 2: each rank trains and evolves a copy of its own. In the end the copies are averaged
over the union of their topologies and pruned to the number of connections that each had (WASAP,
Curci et al. 2021). It prints the time and the accuracy of each phase, on generated data.

With `--checkpoints FOLDER` each epoch is saved, and the same command goes on from the last one.

The training loops are in `data_parallel_study/training.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from data_parallel_study.launching import run_as_rank, start_ranks, under_torchrun
from data_parallel_study.settings import Settings
from data_parallel_study.training import Job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training; returns the status that the process exits with."""
    options = parse(arguments)
    settings = Settings(epochs=options.epochs, regrow=options.regrow, seed=options.seed)
    job = Job(settings, options.checkpoints, options.save, options.kill_after)
    try:
        if job.folder is not None:
            job.folder.mkdir(parents=True, exist_ok=True)
        if under_torchrun():
            run_as_rank(job)
        elif job.kill_after is not None and job.folder is None:
            with tempfile.TemporaryDirectory() as folder:
                job = Job(settings, Path(folder), options.save, options.kill_after)
                start_ranks(job, options.ranks, options.threads)
        else:
            start_ranks(job, options.ranks, options.threads)
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ranks", type=positive, default=2, help="processes (torchrun sets its own number)")
    add("--threads", type=positive, help="of each process [all cores, divided by the ranks]")
    add("--epochs", type=positive, default=Settings.epochs, help="[%(default)s]")
    add("--regrow", choices=["random", "gradient"], default=Settings.regrow, help="[%(default)s]")
    add("--seed", type=int, default=Settings.seed, help="[%(default)s]")
    add("--checkpoints", type=Path, metavar="FOLDER", help="save each epoch there, resume from it")
    add("--save", type=Path, metavar="FILE", help="save the merged network to this file")
    add("--kill-after", type=positive, metavar="EPOCHS", help="kill a rank after these, restart")
    options = parser.parse_args(arguments)
    if options.ranks > Settings.batch_size:
        parser.error(f"--ranks must be at most {Settings.batch_size}, a batch of one sample each")
    if options.kill_after is not None and under_torchrun() and options.checkpoints is None:
        parser.error("--kill-after under torchrun needs --checkpoints")
    if options.threads is None:
        options.threads = max(torch.get_num_threads() // options.ranks, 1)
    return options


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
