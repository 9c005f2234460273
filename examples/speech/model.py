"""A small convolutional reader of speech: log-mel frames in, letters' scores out.

B utterances, S frames of 10 ms, T = ceil(S / STRIDE) frames of the output, C channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from examples.speech.features import MELS
from examples.speech.sounds import LETTERS

CHANNELS = 128
STRIDE = 3  # frames of 30 ms: the two e of "three" still have a blank between
KERNEL = 5
DILATIONS = 1, 1, 2, 2, 4  # the last layer sees 1.3 s
DROPOUT = 0.1


class SpeechReader(nnx.Module):
    """Residual convolutions over time; parameters in float32, arithmetic in `dtype`.

    bfloat16 halves what activations take, and has float32's range: no loss scaling. The
    last layer is in float32, so that the loss gets scores that were never rounded.
    """

    def __init__(self, *, dtype: Any = jnp.bfloat16, rngs: nnx.Rngs):
        """Draws the parameters, about 440 thousand, from `rngs`."""
        self.dtype = dtype
        self.first = nnx.Conv(
            MELS, CHANNELS, (2 * STRIDE + 1,), STRIDE, dtype=dtype, rngs=rngs
        )
        self.layers = nnx.List(
            nnx.Conv(
                *(CHANNELS, CHANNELS, (KERNEL,)),
                kernel_dilation=dilation,
                dtype=dtype,
                rngs=rngs,
            )
            for dilation in DILATIONS
        )
        self.norms = nnx.List(
            nnx.LayerNorm(CHANNELS, dtype=dtype, rngs=rngs) for _ in DILATIONS
        )
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.scores = nnx.Linear(CHANNELS, len(LETTERS), rngs=rngs)

    def __call__(
        self, features: jax.Array, frames: jax.Array, *, training: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Scores every letter at every frame of the output.

        Args:
            features: [B, S, MELS] float.
            frames: [B] int, true frames of each.
            training: whether dropout is on.

        Returns:
            Logits [B, T, V] float32, and how many of their frames are true, [B]: the
            loss wants lengths of what it scores, not of what the model was given.
        """
        lengths = -(-frames // STRIDE)
        inside = jnp.arange(features.shape[1]) < frames[:, None]  # [B, S]
        hidden = jnp.where(inside[..., None], features, 0).astype(self.dtype)
        hidden = nnx.gelu(self.first(hidden))  # [B, T, C]
        inside = (jnp.arange(hidden.shape[1]) < lengths[:, None])[..., None]
        for convolve, norm in zip(self.layers, self.norms, strict=True):
            # A kernel looks past the utterance's end: it must find zeros there.
            update = nnx.gelu(convolve(jnp.where(inside, norm(hidden), 0)))
            hidden = hidden + self.dropout(update, deterministic=not training)
        return self.scores(hidden.astype(jnp.float32)), lengths
