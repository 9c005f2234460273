"""The two kernels alone, under an interpreter that looks for what a TPU would not tell.

It raises where memory is read that nobody wrote, or out of bounds, and looks for two
that touch the same memory at once. Its callbacks are ordered effects, which neither a
scan nor a rule of derivatives lets through: so there is no loss around the kernels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jax_ctc._numbers.extended import ZERO, Extended, careful
from jax_ctc._recursion.tpu import kernels
from jax_ctc._recursion.tpu.slots import lay_out, spread, spread_numbers

B, K, U, BLOCK = 3, 16, 20, 8


def column(slots, state):
    """Return a column that holds 1 in a blank state, and 0 elsewhere."""
    exponent = np.full((2, B, U + 1), ZERO, np.int32)
    exponent[0, :, state] = 0
    exponent = spread(jnp.asarray(exponent), slots, ZERO)
    return Extended(jnp.ones_like(exponent, jnp.float32), exponent)


def both(interpret):
    """Run both kernels on some frames, of which the first three are held."""
    rng = np.random.default_rng(0)
    slots = lay_out(B, U)
    logs = jnp.asarray(-5 * rng.random((K, B, U + 1)), jnp.float32)
    can_skip = jnp.asarray(rng.random((1, B, U)) < 0.8, jnp.int32)
    frames = kernels.Frames(
        blank=spread_numbers(logs[:, :, -1], slots, 0),
        label=spread(logs[:, :, :-1], slots, -jnp.inf),
        can_skip=spread(can_skip, slots, 0)[:, 0],
        first=jnp.asarray([3], jnp.int32),
    )
    cut = kernels.Cut(slots, BLOCK, True, unroll=1, interpret=interpret)
    scale = jnp.full((slots.tiles, 1, 128), -20, jnp.int32)
    end, marks = kernels.forward(frames, careful(column(slots, 0)), cut, has_marks=True)
    return end, kernels.backward(frames, marks, scale, careful(column(slots, U)), cut)


@pytest.mark.slow
@pytest.mark.optimised
def test_no_races_and_nothing_uninitialised():
    """And the answer is that of the other interpreter, to the bit."""
    careful_params = pltpu.InterpretParams(
        detect_races=True, uninitialized_memory="nan", out_of_bounds_reads="raise"
    )
    try:
        found = jax.block_until_ready(jax.jit(lambda: both(careful_params))())
        # Where the interpreter keeps what it found is private: if it has moved, this
        # says so.
        from jax._src.pallas.mosaic.interpret import interpret_pallas_call

        assert not interpret_pallas_call.races.races_found
    finally:
        pltpu.reset_tpu_interpret_mode_state()
    expected = jax.jit(lambda: both(True))()
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)
