"""What every guest must pass besides `contract.py`: each transform, and where it runs.

A check is given the name of a guest that accepts here, and the mark that it leaves in
the text of a compiled program. All of them use one small ragged batch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc
from benchmarks import hlo
from tests.oracle import batch_loss_and_gradient

B, T, V, U = 8, 12, 6, 3
BATCH, NOWHERE = PartitionSpec("data"), PartitionSpec()


@functools.cache
def batch():
    """A ragged batch in which one utterance is impossible."""
    rng = np.random.default_rng(11)
    labels = rng.integers(1, V, (B, U)).astype(np.int32)
    labels[1] = 2  # with its repeats 5 frames, of which it has 3
    lengths = rng.integers(2 * U, T + 1, B).astype(np.int32)
    lengths[1] = 3
    logits = rng.normal(size=(B, T, V)).astype(np.float32)
    return logits, labels, lengths, rng.integers(1, U + 1, B).astype(np.int32) | 1


def exact():
    """The oracle's gradient of the sum of finite losses."""
    logits, labels, lengths, counts = batch()
    alive = np.arange(B) != 1
    gradient = np.zeros(logits.shape)
    _, gradient[alive] = batch_loss_and_gradient(
        *(x[alive] for x in (logits, labels, lengths, counts))
    )
    return gradient


def total(name, logits, *rest):
    """The sum of the losses, impossible ones as 0."""
    return jnp.sum(
        jax_ctc.ctc_loss(logits, *rest, infeasible="zero", implementation=name)
    )


def per_utterance(name, logits, *rest):
    """The same, mapped over utterances."""
    one = functools.partial(jax_ctc.ctc_loss, infeasible="zero", implementation=name)
    return jnp.sum(jax.vmap(one)(logits, *rest))


def close(gradient, expected=None):
    """Compare with the oracle, to what float32 promises."""
    expected = exact() if expected is None else expected
    np.testing.assert_allclose(np.asarray(gradient), expected, rtol=0, atol=2e-6)


def compiled(function, *arguments):
    """Return what the function compiles to, and its text."""
    program = jax.jit(function).lower(*arguments).compile()
    return program, program.as_text()


def check_jit(name, mark):
    """The kernel runs, and gives the oracle's gradient."""
    program, text = compiled(jax.grad(functools.partial(total, name)), *batch())
    assert mark in text
    close(program(*batch()))


def check_eager(name, mark):
    """Without jit, and with it switched off."""
    del mark
    gradient = jax.grad(functools.partial(total, name))
    close(gradient(*batch()))
    with jax.disable_jit():
        close(gradient(*batch()))


def check_vmap_of_grad(name, mark):
    """One call takes the whole batch, whichever way it is mapped."""
    gradient = jax.grad(lambda *one: total(name, *(x[None] for x in one)))
    program, text = compiled(jax.vmap(gradient), *batch())
    assert mark in text
    close(program(*batch()))
    program, text = compiled(jax.grad(functools.partial(per_utterance, name)), *batch())
    assert mark in text
    close(program(*batch()))


def check_vmap_over_some(name, mark):
    """Two batches of logits, one of labels."""
    logits, *rest = batch()
    gradient = jax.grad(functools.partial(total, name))
    mapped = jax.vmap(gradient, (0, *[None] * 3))
    program, text = compiled(mapped, np.stack([logits, logits + 1]), *rest)
    assert mark in text
    for found in program(np.stack([logits, logits + 1]), *rest):
        close(found)


def _mesh(kind):
    return jax.make_mesh((8,), ("data",), axis_types=(kind,))


def _placed(mesh):
    return [jax.device_put(x, NamedSharding(mesh, BATCH)) for x in batch()]


def check_sharded_batch(name, mark):
    """XLA gives each device its own utterances, and sends the sum alone."""
    mesh = _mesh(AxisType.Auto)
    for objective in (total, per_utterance):
        function = jax.value_and_grad(functools.partial(objective, name))
        program, text = compiled(function, *_placed(mesh))
        assert [c.name for c in hlo.collectives(text)] == ["all-reduce"]
        assert mark in text
        _, gradient = program(*_placed(mesh))
        assert gradient.sharding.spec[0] == "data"
        close(gradient)


def check_shard_map(name, mark):
    """Inside a map that checks what varies, with the sum taken there."""
    mesh = _mesh(AxisType.Auto)

    def mean(*arrays):
        return jax.lax.psum(total(name, *arrays), "data")

    mapped = jax.shard_map(mean, mesh=mesh, in_specs=BATCH, out_specs=NOWHERE)
    program, text = compiled(jax.value_and_grad(mapped), *_placed(mesh))
    assert [c.name for c in hlo.collectives(text)] == ["all-reduce"]
    assert mark in text
    close(program(*_placed(mesh))[1])


def check_partly_manual(name, mark):
    """Where some axes are left to the compiler, plain XLA runs."""
    del mark
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    gradient = jax.grad(functools.partial(total, name))
    mapped = jax.shard_map(
        gradient, mesh=mesh, in_specs=BATCH, out_specs=BATCH, axis_names={"data"}
    )
    close(jax.jit(mapped)(*batch()))


def check_explicit_axes(name, mark):
    """Logits whose type says how they lie: every device runs the kernel."""
    mesh = _mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        function = jax.grad(functools.partial(total, name))
        program, text = compiled(function, *_placed(mesh))
        assert mark in text
        assert "all-gather" not in text
        close(program(*_placed(mesh)))


def check_remat_and_scan(name, mark):
    """Recomputed, and inside a loop."""
    logits, *rest = batch()

    def sum_of_two(logits):
        step = jax.checkpoint(lambda logits: total(name, logits, *rest))
        added, _ = jax.lax.scan(
            lambda sum, x: (sum + step(x), None), 0.0, jnp.stack([logits, logits])
        )
        return added

    program, text = compiled(jax.grad(sum_of_two), logits)
    assert mark in text
    close(program(logits), 2 * exact())


def check_hvp(name, mark):
    """Second derivatives are those of `scan`."""
    del mark
    logits, *rest = batch()
    tangent = np.random.default_rng(12).normal(size=logits.shape).astype(np.float32)

    def hvp(name, logits):
        gradient = jax.grad(lambda x: total(name, x, *rest))
        return jax.jvp(gradient, (logits,), (jnp.asarray(tangent),))

    for found, expected in zip(
        jax.jit(hvp, static_argnums=0)(name, logits),
        jax.jit(hvp, static_argnums=0)("scan", logits),
        strict=True,
    ):
        close(found, np.asarray(expected))


def check_export(name, mark):
    """An exported program needs no kernel, on any platform, and loads again."""
    gradient = jax.jit(jax.grad(functools.partial(total, name)))
    exported = jax.export.export(gradient, platforms=("cpu", "tpu", "cuda"))(*batch())
    assert mark not in exported.mlir_module()
    loaded = jax.export.deserialize(exported.serialize())
    close(loaded.call(*batch()))


CHECKS = [check for key, check in list(globals().items()) if key.startswith("check_")]
