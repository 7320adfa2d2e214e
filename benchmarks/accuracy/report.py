"""A table of runs as a page: every figure comes from the file of runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.markdown import table as markdown

from .comparing import corrected_t_test, mean_ranks, nemenyi_distance, wilcoxon
from .data_sets import CONFIRMED, SEARCHED
from .methods import SHIPPED
from .store import Run, Store
from .tables import Table


@dataclass(frozen=True)
class Scores:
    """The runs of a table, by method and data set, on the splits that all methods have there."""

    table: Table
    runs: Mapping[str, Mapping[str, Mapping[int, Run]]]

    @classmethod
    def of(cls, table: Table, store: Store) -> Scores:
        """Collect the runs of a table; methods without any are left out."""
        found = {
            name: {data: store.of(data, method) for data in table.data_sets}
            for name, method in table.methods.items()
        }
        return cls(table, {name: sets for name, sets in found.items() if any(sets.values())})

    def mean(self, name: str, data: str, figure: str = "balanced") -> float | None:
        """Return the mean of a figure over the splits, or None without a run."""
        runs = self.runs[name][data]
        return statistics.fmean(getattr(run, figure) for run in runs.values()) if runs else None

    def complete(self, names: Sequence[str], sets: Sequence[str]) -> list[str]:
        """Return those of the data sets that all the named methods have runs on."""
        return [data for data in sets if all(self.runs[name][data] for name in names)]

    def overall(self, name: str, sets: Sequence[str], figure: str = "balanced") -> float | None:
        """Return the mean over data sets of the mean over splits; None if a set is missing."""
        means = [self.mean(name, data, figure) for data in sets]
        known = [mean for mean in means if mean is not None]
        return statistics.fmean(known) if known and len(known) == len(means) else None

    def paired(self, first: str, second: str, data: str) -> tuple[list[float], list[float]]:
        """Return the balanced accuracies of two methods on the splits that both have."""
        a, b = self.runs[first][data], self.runs[second][data]
        both = sorted(set(a) & set(b))
        return [a[s].balanced for s in both], [b[s].balanced for s in both]


def page(table: Table, store: Store, command: str) -> str:
    """Return the page of a table: accuracies, comparisons, costs."""
    scores = Scores.of(table, store)
    parts = [f"# {table.title}", _protocol(command)]
    parts += ["## Balanced accuracy", _accuracies(scores, "balanced")]
    parts += ["## Plain accuracy", _accuracies(scores, "accuracy")]
    if SHIPPED in scores.runs and len(scores.runs) > 1:
        parts += [f"## {SHIPPED.capitalize()} against each", _comparisons(scores)]
        parts += ["## Ranks", _ranks(scores)]
    parts += ["## Costs", _costs(scores)]
    return "\n\n".join(parts) + "\n"


def _protocol(command: str) -> str:
    return (
        "Repeated stratified cross-validation, 5 repeats of 5 folds, the same splits for all "
        "methods; every choice (features, C, ridge, epochs, scaling) is made inside the training "
        "part; networks are those of the last epoch. Percent; means over the splits, in brackets "
        "how many where fewer were run. Made by\n\n"
        f"```sh\n{command}\n```"
    )


def _groups(table: Table) -> list[tuple[str, list[str]]]:
    searched = [data for data in table.data_sets if data in SEARCHED]
    confirmed = [data for data in table.data_sets if data in CONFIRMED]
    groups = [("mean", list(table.data_sets))]
    if searched and confirmed:
        groups += [("searched on", searched), ("confirmed on", confirmed)]
    return groups


def _accuracies(scores: Scores, figure: str) -> str:
    names = list(scores.runs)
    most = max(len(runs) for sets in scores.runs.values() for runs in sets.values())
    groups = _groups(scores.table)
    head = ["method", *(label for label, _ in groups), *scores.table.data_sets]
    rows = []
    for name in names:
        cells = [name]
        for _, sets in groups:
            cells.append(_percent(scores.overall(name, sets, figure)))
        for data in scores.table.data_sets:
            count = len(scores.runs[name][data])
            remark = "" if count in (0, most) else f" ({count})"
            cells.append(_percent(scores.mean(name, data, figure)) + remark)
        rows.append(cells)
    return markdown(head, rows)


def _comparisons(scores: Scores) -> str:
    """Compare the shipped classifier with each method, on the splits that both have."""
    head = ["against", "points ahead", "Wilcoxon p", "ahead / behind", "wins / ties / losses"]
    rows = []
    for name in scores.runs:
        if name == SHIPPED:
            continue
        sets = scores.complete([SHIPPED, name], scores.table.data_sets)
        if not sets:
            continue
        pairs = [scores.paired(SHIPPED, name, data) for data in sets]
        ours = [statistics.fmean(a) for a, _ in pairs]
        theirs = [statistics.fmean(b) for _, b in pairs]
        verdicts = [corrected_t_test(a, b).verdict for a, b in pairs]
        counts = " / ".join(str(verdicts.count(word)) for word in ("win", "tie", "loss"))
        ahead = sum(a > b + 1e-9 for a, b in zip(ours, theirs, strict=True))
        behind = sum(b > a + 1e-9 for a, b in zip(ours, theirs, strict=True))
        lead = 100 * (statistics.fmean(ours) - statistics.fmean(theirs))
        rows.append(
            [name, f"{lead:+.2f}", f"{wilcoxon(ours, theirs):.4f}", f"{ahead} / {behind}", counts]
        )
    return markdown(head, rows) + (
        "\n\nPoints: mean difference of balanced accuracy over the data sets, on the splits that "
        "both have. Wilcoxon's signed ranks over data sets; ahead / behind counts data sets. Wins, "
        "ties and losses: the corrected resampled t-test of Nadeau and Bengio at 5 % on each set."
    )


def ranked(scores: Scores) -> tuple[list[str], list[float], int]:
    """Return the methods that have runs on every data set, their mean ranks, and the sets."""
    sets = scores.table.data_sets
    names = [name for name in scores.runs if all(scores.runs[name][data] for data in sets)]
    rows = [[scores.mean(name, data) or 0.0 for name in names] for data in sets]
    return names, mean_ranks(rows), len(sets)


def _ranks(scores: Scores) -> str:
    names, ranks, sets = ranked(scores)
    if len(names) < 2:
        return "Too few methods are complete."
    order = sorted(range(len(names)), key=lambda place: ranks[place])
    rows = [[names[place], f"{ranks[place]:.2f}"] for place in order]
    distance = nemenyi_distance(len(names), sets)
    return markdown(["method", "mean rank"], rows) + (
        f"\n\nRanks that differ by less than {distance:.2f} (Nemenyi, 5 %) may differ by chance."
    )


def _costs(scores: Scores) -> str:
    sets = scores.table.data_sets
    head = ["method", "seconds of fit, median", "seconds, slowest set", "weights, median"]
    rows = []
    for name in scores.runs:
        times, weights = [], []
        for data in sets:
            runs = list(scores.runs[name][data].values())
            if runs:
                times.append(statistics.median(run.fit_seconds for run in runs))
                weights.append(statistics.median(run.weights for run in runs))
        rows.append(
            [
                name,
                f"{statistics.median(times):.2f}",
                f"{max(times):.2f}",
                f"{statistics.median(weights):,.0f}",
            ]
        )
    return markdown(head, rows) + (
        "\n\nOne thread, on a machine with other work: compare the seconds with each other. Of "
        "a forest, the nodes are counted in place of weights."
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
