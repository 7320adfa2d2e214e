"""The table of operators: everything that is registered, with its samples and its oracles.

Each law of laws.py is tested with each operator of this table (test_operator_laws.py), so an
operator gets all of these tests by its entry here. An operator without an entry fails a test.
"""

from __future__ import annotations

from operator_entry import Constant, Operator
from packed_entries import PACKED
from product_entries import PRODUCTS
from selection_entries import SELECTIONS
from topology_entries import TOPOLOGIES
from update_entries import UPDATES

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in [*PRODUCTS, *UPDATES.values(), *PACKED, *TOPOLOGIES, *SELECTIONS]
}

# Operators that neither take nor return a tensor.
CONSTANTS: dict[str, Constant] = {
    constant.name: constant
    for constant in [
        Constant("active_isa", (), lambda name: name in ("scalar", "avx2", "avx512", "neon")),
        Constant("scatter_batch", (), lambda samples: type(samples) is int and samples > 0),
        Constant("last_refusal", (), lambda text: type(text) is str),
        Constant("poison_results", (False,), lambda nothing: nothing is None),
    ]
}
