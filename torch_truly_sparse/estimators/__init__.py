"""scikit-learn estimators made of ensembles of truly sparse networks, for wide data.

`TrulySparseClassifier` and `TrulySparseRegressor` fit a table of samples x features as it is: no
scaling, no selection of features and no PyTorch loop are needed. They need scikit-learn 1.6 or
later, which `pip install torch_truly_sparse[sklearn]` installs. The package imports this module
only when a user does.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "torch_truly_sparse.estimators needs scikit-learn: "
        "pip install 'torch_truly_sparse[sklearn]'"
    ) from error

from .classifier import TrulySparseClassifier
from .ensemble import SparseEnsemble
from .ranking import FeatureRanking, rank_features
from .recipe import Recipe
from .regressor import TrulySparseRegressor

__all__ = [
    "FeatureRanking",
    "Recipe",
    "SparseEnsemble",
    "TrulySparseClassifier",
    "TrulySparseRegressor",
    "rank_features",
]
