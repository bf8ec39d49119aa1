"""A module for each operation of ONNX: torch's own where it is the same, else one that calls torch's own functions.

``OPERATIONS`` is the table. A function in it takes a ``Making``, which knows the node and the constants, and gives the
module and the names of the values that it is called with. What differs between versions of an operation is read as the
operator's own history says (onnx.ai/onnx/operators).
"""

from .cells import CELLS
from .learned import LEARNED
from .making import Table
from .pooling import POOLING
from .shapes import SHAPES
from .sizes import SIZES

OPERATIONS: Table = {**LEARNED, **POOLING, **CELLS, **SHAPES, **SIZES}
