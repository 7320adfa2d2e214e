"""Learn from few samples with thousands of features: truly sparse, dense and classic.

    python microarray.py                                    # made-up data, nothing to download
    python microarray.py colon.mat leukemia.mat --splits 5  # your own files
    python microarray.py --markdown results/microarray/*.json
    python microarray.py colon.mat --save colon.model       # fit the classifier on all samples
    python microarray.py new.csv --predict colon.model      # what are these new samples?

Compared on the same stratified splits, with the same seeds:

- the truly sparse classifier of `torch_truly_sparse.estimators`, as it is: no scaling, no tuning,
- a truly sparse MLP trained by SET with the settings of its paper,
- its masked-dense twin: the same topologies, weights and batches, as dense matrices times a mask
  (only where `--methods` names it: it takes longer than all others together),
- a dense MLP of the same shape,
- the classic way: select features, then fit a linear SVM, all chosen inside the training part,
- a linear SVM on all features.

For each it prints the accuracy after the last epoch, the weights, the training seconds per epoch
and the memory that the training added at its peak. Pictures go to `--output` (accuracy by split,
who was taken for whom, the features that decided; learning and cost of the networks), and a JSON
file with every figure.
Press Ctrl-C at any time: what is done is kept, and the same command goes on from there.

The training loop is in `microarray_study/training.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from microarray_study.command_line import parse, reading_of, settings_of
from microarray_study.data_set import DataSet
from microarray_study.errors import InputError, RunError
from microarray_study.fresh_process import run_in_fresh_process
from microarray_study.generated import generate
from microarray_study.measuring import environment
from microarray_study.networks import check_sparse
from microarray_study.prediction import fit_and_save, load, predict_file
from microarray_study.readers import Reading, read
from microarray_study.results import Results, Run, load_results, open_results
from microarray_study.settings import METHODS, NETWORKS, Settings
from microarray_study.table import markdown_tables, text_table
from microarray_study.worker import Job, run_job
from tqdm import tqdm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the status that the process exits with."""
    options = parse(__doc__, arguments)
    every: list[Results] = []
    try:
        if options.markdown:
            print_markdown(options.files or sorted(options.output.glob("*.json")))
            return 0
        settings = settings_of(options)
        if options.predict:
            model = load(options.predict)
            for path in options.files:
                predict_file(model, path, reading_of(options), options.output)
            return 0
        data_sets = read_all(options.files, reading_of(options), settings)
        if options.save:
            fit_and_save(data_sets[0], reading_of(options), settings, options.save)
            print(f"Saved: {options.save}")
            return 0
        where = environment()
        every = [
            open_results(options.output, data, settings, where, options.restart)
            for data in data_sets
        ]
        compare(data_sets, every, settings, options.splits, options.methods)
        show(every)
        draw(every, options.output)
        return 0
    except KeyboardInterrupt:
        show(every)
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    except (InputError, RunError) as error:
        if isinstance(error, RunError):
            show(every)
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def compare(
    data_sets: list[DataSet],
    every: list[Results],
    settings: Settings,
    splits: int,
    methods: list[str],
) -> None:
    """Run every method on every split of every data set, but for what is done already."""
    jobs = [
        (Job(data, method, split, settings), results)
        for data, results in zip(data_sets, every, strict=True)
        for split in range(1, splits + 1)
        for method in METHODS
        if method in methods and not results.has(split, method)
    ]
    runs = len(data_sets) * splits * len(methods)
    if len(jobs) < runs:
        print(f"Done already: {runs - len(jobs)} of {runs} runs (--restart does them again).")
    # Bars only where someone watches: in a log they would be one line for each step.
    with tqdm(jobs, desc="runs", unit="run", disable=None) as bar:
        for job, results in bar:
            run = run_watched(job)
            results.add(run)
            bar.write(f"{job.data.name}, split {job.split}, {summary(run)}")


def run_watched(job: Job) -> Run:
    """Do one run in a process of its own, under a progress bar of its epochs."""
    epochs = job.settings.epochs if job.method in NETWORKS else 1
    with tqdm(
        total=epochs, desc=METHODS[job.method], unit="epoch", leave=False, disable=None
    ) as bar:

        def on_epoch(figures: dict[str, float]) -> None:
            bar.set_postfix(figures, refresh=False)
            bar.update()

        try:
            return run_in_fresh_process(
                run_job, job, on_report=on_epoch, threads=job.settings.threads
            )
        except RunError as error:
            raise RunError(
                f"{job.data.name}, split {job.split}, {METHODS[job.method]}: {error}"
            ) from error


def summary(run: Run) -> str:
    """Describe one run in a line."""
    time = (
        f"{run.seconds:.1f} s"
        if run.seconds_per_epoch is None
        else f"{run.seconds_per_epoch:.3f} s an epoch"
    )
    return f"{METHODS[run.method]}: accuracy {run.accuracy:.3f}, {time}"


def show(every: list[Results]) -> None:
    """Print the table of each data set that has a run."""
    for results in every:
        if results.runs:
            about = results.data_set
            sizes = ", ".join(map(str, about["classes"].values()))
            print(
                f"\n{about['name']}: {about['samples']} samples x {about['features']:,} features, "
                f"{len(about['classes'])} classes ({sizes}); {about['source']}"
            )
            print(text_table(results))
            print(f"Results: {results.path}")


def draw(every: list[Results], folder: Path) -> None:
    """Draw a picture of each data set, and one of all where there are several."""
    from microarray_study import picture  # matplotlib takes a moment to load

    for results in every:
        print(f"Picture: {picture.draw_data_set(results, results.path.with_suffix('.png'))}")
        if set(results.by_method()) & set(NETWORKS):
            path = results.path.with_name(f"{results.path.stem}_networks.png")
            print(f"Picture: {picture.draw_networks(results, path)}")
    if len(every) > 1:
        print(f"Picture: {picture.draw_overview(every, folder / 'overview.png')}")


def print_markdown(files: list[Path]) -> None:
    """Print the tables of results files, ready to paste into a page."""
    if not files:
        raise InputError("--markdown needs results: name .json files, or a folder with --output")
    print(markdown_tables([load_results(path) for path in files]))


def read_all(files: list[Path], reading: Reading, settings: Settings) -> list[DataSet]:
    """Read every file before anything is trained, or generate data if there is none."""
    data_sets = [read(path, reading) for path in files] or [generate(seed=settings.seed)]
    names = [data.name for data in data_sets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two files are named {name!r}, and so would be their results; rename one"
            )
    for data in data_sets:
        check_sparse(data.features.shape[1], settings)
        print(f"{data.name}: {data.describe()}")
        for note in data.notes:
            print(f"  {note}")
    return data_sets


if __name__ == "__main__":
    sys.exit(main())
