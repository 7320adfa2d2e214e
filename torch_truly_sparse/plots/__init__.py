"""Pictures of sparse networks and of their evolution, drawn with matplotlib.

`pip install 'torch_truly_sparse[plots]'`. Each function draws into the axes that it is given, or
into the current ones, and returns them: `axes.figure.savefig("picture.png")`.
"""

from .connectivity import input_image, ranking
from .layers import degrees, densities
from .recording import LayerRecording, Recording
from .run import degrees_over_time, loss_and_turnover

__all__ = [
    "LayerRecording",
    "Recording",
    "degrees",
    "degrees_over_time",
    "densities",
    "input_image",
    "loss_and_turnover",
    "ranking",
]
