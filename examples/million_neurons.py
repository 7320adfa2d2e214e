"""Train networks of a million neurons, and of a billion weights, on an ordinary CPU.

    python million_neurons.py                              # 12,317 neurons, some seconds
    python million_neurons.py --hidden 300000 --epochs 3   # 903,317 neurons
    python million_neurons.py --size fifty --epochs 2      # 50 million neurons, 250 million weights
    python million_neurons.py --size billion --epochs 2    # a billion weights, 22 GiB
    python million_neurons.py lung.mat --hidden 30000      # your own samples

The experiment of the SET papers: few samples of 3,312 features, three equal hidden layers, batches
of 2, SGD with momentum, and after each epoch 30 % of the connections replaced (Mocanu et al. 2018;
Liu et al. 2021). A dense network of 300,000 units a layer would hold 180 billion weights. The
weights are updated within the backward pass (`tts.optim.SGD`), so that no array of their gradient
exists.

It prints the seconds that training and evolution take per epoch and the memory that the network
adds at its peak. What would not fit in memory is refused before it is built.

The training loop is in `million_neurons_study/training.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from microarray_study.errors import InputError, RunError
from microarray_study.measuring import environment
from microarray_study.splits import Parts
from million_neurons_study import data, results, training
from million_neurons_study.command_line import parse, settings_of
from million_neurons_study.memory import bytes_needed, check_memory
from million_neurons_study.settings import Settings
from tqdm import tqdm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; returns the status that the process exits with."""
    options = parse(__doc__, arguments)
    try:
        if options.markdown:
            print(results.markdown_table([results.load(path) for path in options.markdown]))
            return 0
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        settings = settings_of(options)
        if options.file is None:
            check_memory(settings)
            parts, source = data.generate(settings), f"generated, seed {settings.seed}"
        else:
            settings, read = data.load(options.file, options.label, settings)
            check_memory(settings)
            parts, source = data.parts_of(read, settings), read.source
        describe(settings, source)
        outcome = run_watched(settings, parts)
        threads = torch.get_num_threads()
        result = results.as_json(settings, source, threads, environment(), outcome)
        print(results.text_table(result))
        if options.json is not None:
            results.save(options.json, result)
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def describe(settings: Settings, source: str) -> None:
    """Print what is about to be trained."""
    weights = sum(layer.weights for layer in settings.layers())
    print(
        f"{'-'.join(map(str, settings.units))}: {settings.neurons:,} neurons, {weights:,} weights "
        f"(dense: {sum(layer.inputs * layer.outputs for layer in settings.layers()):,}); "
        f"at most about {bytes_needed(settings) / 1e6:,.0f} MB\n"
        f"data: {source}; learning rate {settings.rate:g}"
    )


def run_watched(settings: Settings, parts: Parts) -> training.Outcome:
    """Run under a progress bar of all steps, with the time that is left."""
    batch = settings.batch_size
    steps = settings.epochs * (len(parts.train_labels) // batch)
    tests = -(-len(parts.test_labels) // batch)
    # A bar only where someone watches: in a log it would be one line for each step.
    with tqdm(total=steps + tests, desc="training", unit="step", disable=None) as bar:

        def on_step(loss: float | None) -> None:
            if loss is None:
                bar.set_description("testing", refresh=False)
            else:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        return training.run(settings, parts, on_step)


if __name__ == "__main__":
    sys.exit(main())
