"""Who is whose parent."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._decoding import parents
from jax_ctc._decoding.names import constant, longer


def test_parents_are_found():
    """A beam with parents, a repeat among them, orphans and empty places."""
    sequences = [(1,), (1, 1), (2,), (1, 2), (3, 2), (1, 2, 1), (), (2, 2)]
    alive = np.array([True, True, False, True, True, True, True, True])

    def name_of(labels):
        name = constant(jnp.int32(0), parents.EMPTY)
        for label in labels:
            name = longer(name, jnp.int32(label))
        return name

    def stack(names):
        return jax.tree.map(lambda *x: jnp.stack(x), *names)

    rng = np.random.default_rng(0)
    blank, more = (jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(2))
    nobody = constant(jnp.int32(0), parents.NOBODYS_PARENT)
    last = jnp.array([s[-1] if s else -1 for s in sequences], jnp.int32)
    name = stack(map(name_of, sequences))
    parent = stack(name_of(s[:-1]) if s else nobody for s in sequences)
    total = jnp.where(alive, jnp.logaddexp(blank, more), -jnp.inf)
    found = parents.find_parents(name, parent, last, blank, total)
    assert found.place.tolist() == [6, 0, -1, 0, -1, 3, -1, -1]
    assert found.mass[1] == blank[0]  # a repeat follows only a blank
    assert found.mass[3] == total[0]
