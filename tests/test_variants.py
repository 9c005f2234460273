"""The recipes of docs/variants.md: what they say, and their gradients."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs/variants.md"
BLOCKS = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)


@pytest.fixture(scope="module")
def page():
    """The page's functions and its batch, in float64.

    With hypotheses that no beam has to be compiled for.
    """
    found = types.SimpleNamespace(
        labels=np.array([[[1, 2, 2], [1, 2, -1]], [[3, 4, -1], [4, -1, -1]]], np.int32),
        lengths=np.array([[3, 2], [2, 1]], np.int32),
        log_prob=np.zeros((2, 2)),
    )
    namespace = {"__name__": "variants", "found": found}
    with jax.enable_x64(True):
        for number, block in enumerate(BLOCKS.findall(PAGE.read_text())):
            code = block.partition("\nfound = ")[0]
            exec(compile(code, f"variants.md block {number}", "exec"), namespace)
        yield namespace


@pytest.mark.slow
@pytest.mark.relaxed
def test_gradients_are_finite_differences(page, x64):
    """Of every recipe whose teachers are other models; padded frames have no slope."""
    logits, step = page["logits"], 1e-5
    tangent = np.random.default_rng(1).normal(size=logits.shape)
    on_padding = np.zeros_like(tangent)
    on_padding[1, 7:] = 1

    @jax.jit
    def along(logits, tangent):
        return jax.jvp(page["variants"], (logits,), (tangent,))

    _, slopes = along(logits, tangent)
    ahead, _ = along(logits + step * tangent, tangent)
    behind, _ = along(logits - step * tangent, tangent)
    _, of_padding = along(logits, on_padding)
    assert len(slopes) == 11
    for name, slope in slopes.items():
        assert (np.abs(slope) > 1e-3).all(), name
        assert (of_padding[name] == 0).all(), name
        if name == "consistency":  # half of its divergence is of a constant
            continue
        difference = (ahead[name] - behind[name]) / (2 * step)
        np.testing.assert_allclose(slope, difference, atol=1e-7, err_msg=name)


@pytest.mark.relaxed
def test_consistency_pulls_each_view_by_the_difference(page, x64):
    """Its published gradient: half the loss's, and half of p_view - p_other."""
    ctc_loss, other, targets = page["jax_ctc"].ctc_loss, page["other"], page["targets"]

    @jax.jit
    @jax.grad
    def both(logits):
        loss = page["consistency"](logits, other, 1.0, *targets)
        return jnp.sum(loss - ctc_loss(logits, *targets) / 2)

    logits = page["logits"]
    expected = (jax.nn.softmax(logits) - jax.nn.softmax(other)) / 2
    is_live = np.arange(9) < np.array([[9], [7]])
    np.testing.assert_allclose(both(logits), expected * is_live[..., None], atol=1e-9)
