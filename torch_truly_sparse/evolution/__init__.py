"""Evolution of a topology during training: prune the weakest connections, regrow as many.

Here are the records of what an evolution did, and `register_optimizer`. The other public names of
this part live elsewhere: `SparseEvolution`, `SET`, `RigL`, `MEST` and `SparseMomentum` at the top
of the package, the rules in `torch_truly_sparse.rules`, the schedules in
`torch_truly_sparse.schedules`.
"""

from .optimizer_state import register_optimizer
from .record import EvolutionRecord, LayerChange, LayerRecord

__all__ = ["EvolutionRecord", "LayerChange", "LayerRecord", "register_optimizer"]
