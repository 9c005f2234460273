"""What a caller may hand in, and the letters that every shape is written in.

Letters, in code, docstrings and error messages alike:

    B  utterances in the batch          n  position in the label row, 0..U
    T  frames, padding included         s  one state of the lattice
    V  classes, blank included          K  frames of one chunk
    D  features of a frame              C  classes of one block
    U  labels, padding included         R  frames between two renormalisations

`log_` means the natural logarithm (nats); without it a number is not a logarithm.
Public arrays are batch-major; below `_lattice` they are time-major.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

# What a caller may hand in. A static checker sees what is meant; an executed
# annotation sees `Any`, so that the designed messages of `_validate` come first.
if TYPE_CHECKING:
    ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence[Any]
    Option: TypeAlias = str
    Index: TypeAlias = int
    Number: TypeAlias = float
    Flag: TypeAlias = bool
    Blocks: TypeAlias = Iterable[ArrayLike]
    Batches: TypeAlias = Iterable[Any]  # mappings or tuples of arrays
    Vocabulary: TypeAlias = Sequence[str] | Mapping[int, str]  # text of each class id
    Transform: TypeAlias = Callable[[jax.Array], jax.Array]  # of logits, one by one
    Leaf: TypeAlias = jax.Array  # of a result; JAX rebuilds results from other leaves
else:
    ArrayLike = Option = Index = Number = Flag = Blocks = Vocabulary = Leaf = Any
    Transform = Batches = Any
