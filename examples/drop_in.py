"""A transformer whose projections become truly sparse: the same loop, one more line.

    python drop_in.py                  # small, some seconds
    python drop_in.py --preset wide    # width 640, feed-forward 2560, 1,000 steps: a quarter hour

A character-level transformer learns the sources of Python's own standard library, which every
Python brings along: once dense, once with its feed-forward and attention projections replaced by
`torch_truly_sparse.sparsify`. Both see the same batches in the same order. For each it prints the
loss on held-out files after the last step, the weights, the memory, the time of a step and of its
feed-forward layers alone; a picture and a JSON file go to `--output`.

Press Ctrl-C at any time: a form that is done is kept, and the same command goes on with the other.

The model is in `drop_in_study/transformer.py`, the loop in `drop_in_study/training.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from drop_in_study.command_line import parse, settings_of
from drop_in_study.results import Run, open_results, table
from drop_in_study.settings import Settings
from drop_in_study.text import Text, read_standard_library
from drop_in_study.worker import run
from microarray_study.errors import InputError, RunError
from microarray_study.fresh_process import run_in_fresh_process
from microarray_study.measuring import environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the status that the process exits with."""
    options = parse(__doc__, arguments)
    try:
        settings = settings_of(options)
        text = read_standard_library(settings.text, settings.seed)
        setting = {
            "settings": asdict(settings),
            "text": text.fingerprint,
            "environment": environment(),
        }
        results = open_results(options.output / f"{options.preset}.json", setting, options.restart)
        print(
            f"Text: {text.train.numel():,} characters to train on, {text.held_out.numel():,} "
            "of other files held out"
        )
        for form in options.forms:
            if form in results.runs:
                print(f"{form}: done already (--restart does it again)")
            else:
                results.add(run_printing(form, text, settings))
        print(f"\n{table(results)}\nResults: {results.path}")

        from drop_in_study import picture  # matplotlib takes a moment to load

        print(f"Picture: {picture.draw(results, results.path.with_suffix('.png'))}")
        return 0
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def run_printing(form: str, text: Text, settings: Settings) -> Run:
    """Do one run in a process of its own, and print each evaluation."""
    try:
        return run_in_fresh_process(
            run,
            form,
            text,
            settings,
            on_report=lambda line: print(line, flush=True),
            threads=settings.threads,
        )
    except RunError as error:
        raise RunError(f"{form}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
