"""The options of reading a file."""

from __future__ import annotations

from dataclasses import dataclass

# What may be done about missing values, and about samples without a label.
MISSING = ("refuse", "median", "drop-features", "drop-samples")
UNLABELLED = ("refuse", "drop")


@dataclass(frozen=True)
class Reading:
    """What the user says about a file; the defaults let the file speak.

    Args:
        label: the name of the column, row, array or annotation that holds the labels. `first` and
            `last` mean the first and the last column, unless a column has this name.
        transpose: whether the rows of the table are genes and its columns samples.
        missing: one of `MISSING`: refuse missing values, fill in the median of the feature, or
            leave out the features or the samples that have any.
        unlabelled: one of `UNLABELLED`: refuse samples without a label, or leave them out.
        characteristic: the sample characteristic of a GEO series matrix that is the label.
        ignore: names of columns (or of rows, with `transpose`) that are left out.

    Raises:
        ValueError: `missing` or `unlabelled` is not one of its values.
    """

    label: str | None = None
    transpose: bool = False
    missing: str = "refuse"
    unlabelled: str = "refuse"
    characteristic: str | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("missing", MISSING), ("unlabelled", UNLABELLED)):
            if getattr(self, name) not in values:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(values)}, got {getattr(self, name)!r}"
                )
