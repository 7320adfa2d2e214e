"""The tables: which data sets and methods each compares, and the file of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .data_sets import FOLDS, LARGER, PACKAGED, REPEATS, SEARCHED, SMALL
from .methods import ABLATIONS, DENSE, METHODS, SHIPPED, Method
from .networks import fit_at_density
from .selections import SELECTIONS

# Dense first layers of 8 members on 20,000 features and more take 2 GB, and as much for momenta.
TOO_WIDE = ("bladder", "myoblasts", "smokers")
NARROW_ENOUGH = tuple(name for name in PACKAGED if name not in TOO_WIDE)
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)


@dataclass(frozen=True)
class Table:
    """What one command runs.

    Attributes:
        name: of the command, the file of runs and the page.
        title: of the page.
        data_sets: names of the files.
        methods: by their names.
        splits: how many of the 25 are done by default.
        fewer: methods that are run on fewer splits, for what they cost.
    """

    name: str
    title: str
    data_sets: tuple[str, ...]
    methods: Mapping[str, Method]
    splits: int = FOLDS * REPEATS
    fewer: Mapping[str, int] = field(default_factory=dict)

    def method(self, name: str) -> Method:
        """Return a method by its name.

        Raises:
            ValueError: the table has no such method.
        """
        if name not in self.methods:
            raise ValueError(f"`--methods` must be among {', '.join(self.methods)}, got {name!r}")
        return self.methods[name]


def density_methods() -> dict[str, Method]:
    """Return the rows of the density sweep: how a topology comes about, times the density."""
    methods = {}
    for density in DENSITIES:
        for name in ("static", "set", "rigl"):
            label = f"{name} {100 * density:g} %"
            settings = {"density": density, "topology": name}
            methods[label] = Method(label, fit_at_density, settings)
    methods["dense"] = Method("dense", fit_at_density, {"density": 1.0, "topology": "dense"})
    return methods


TABLES = {
    table.name: table
    for table in (
        Table(
            "small",
            "Few samples: sixteen data sets",
            SMALL,
            METHODS,
            fewer={DENSE: 8, "SET as in its paper": 5, "masked twin": 3},
        ),
        Table(
            "larger",
            "More samples: madelon, COIL20, PCMAC",
            LARGER,
            METHODS,
            splits=5,
            fewer={DENSE: 1},
        ),
        Table(
            "packaged",
            "Sets of published packages, which had no part in any choice",
            PACKAGED,
            {**METHODS, DENSE: replace(METHODS[DENSE], only=NARROW_ENOUGH)},
            splits=10,
            fewer={DENSE: 5, "SET as in its paper": 2},
        ),
        Table(
            "ranking",
            "A linear SVM on the features that a ranking puts first",
            SMALL,
            SELECTIONS,
            splits=5,
        ),
        Table(
            "ablation",
            "What each part of the recipe brings",
            SEARCHED,
            {SHIPPED: METHODS[SHIPPED], **ABLATIONS},
            splits=10,
        ),
        Table(
            "density",
            "Density: static, SET, RigL, dense",
            ("Prostate-GE", "COIL20"),
            density_methods(),
            splits=5,
        ),
    )
}
