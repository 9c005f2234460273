"""A small convolutional reader: pixel columns in, class scores per column out.

N lines, T columns, C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.handwriting.lines import HEIGHT, NUM_CLASSES

CHANNELS = 64
KERNEL = 5  # three layers see 13 columns: one digit and the edges of its neighbours
NUM_LAYERS = 3
DROPOUT = 0.2


class LineReader(nnx.Module):
    """Three convolutions along the line; the rows of the image are its channels.

    One frame per column, with no subsampling: even eights written wall to wall keep
    a spare frame between them for the blank that CTC needs.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        """Draws the parameters, about 46 thousand, from `rngs`."""
        sizes = [HEIGHT] + [CHANNELS] * NUM_LAYERS
        self.convolutions = nnx.List(
            nnx.Conv(size_in, size_out, kernel_size=(KERNEL,), rngs=rngs)
            for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.norms = nnx.List(
            nnx.LayerNorm(CHANNELS, rngs=rngs) for _ in range(NUM_LAYERS)
        )
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.scores = nnx.Linear(CHANNELS, NUM_CLASSES, rngs=rngs)

    def __call__(
        self,
        images: jax.Array | np.ndarray,
        widths: jax.Array | np.ndarray,
        *,
        training: bool = False,
    ) -> jax.Array:
        """Scores every class at every column.

        Args:
            images: [N, HEIGHT, T] float.
            widths: [N] int, true columns of each image.
            training: whether dropout is on.

        Returns:
            [N, T, NUM_CLASSES] logits. Those inside `widths` do not depend on the
            padding beside them.
        """
        return self.scores(self.features(images, widths, training=training))

    def features(
        self,
        images: jax.Array | np.ndarray,
        widths: jax.Array | np.ndarray,
        *,
        training: bool = False,
    ) -> jax.Array:
        """Returns what the last layer scores: [N, T, CHANNELS], 0 past `widths`."""
        inside = (jnp.arange(images.shape[-1]) < widths[:, None])[
            ..., None
        ]  # [N, T, 1]
        hidden = jnp.where(inside, jnp.swapaxes(images, 1, 2), 0)  # [N, T, HEIGHT]
        for layer, (convolve, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            update = nnx.gelu(norm(convolve(hidden)))  # [N, T, C]
            update = self.dropout(update, deterministic=not training)
            if layer > 0:
                update = hidden + update
            # The next kernel looks past the line's end: it must find zeros there.
            hidden = jnp.where(inside, update, 0)
        return hidden

    def last_layer(self) -> tuple[jax.Array, jax.Array]:
        """Returns kernel [CHANNELS, NUM_CLASSES] and bias [NUM_CLASSES]."""
        kernel, bias = self.scores.kernel, self.scores.bias
        assert bias is not None
        return kernel[...], bias[...]


def num_parameters(model: nnx.Module) -> int:
    """Counts the trainable numbers of `model`."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
