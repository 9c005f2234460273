"""Other libraries' signatures, this library's answers: to switch by one line.

| instead of | import |
|---|---|
| `optax.ctc_loss` | `jax_ctc.compat.optax.ctc_loss` |
| `torch.nn.functional.ctc_loss` | `jax_ctc.compat.torch.ctc_loss` |
| `keras.losses.CTC` | `jax_ctc.compat.keras.CTCLoss` |
| `keras.ops.ctc_loss` | `jax_ctc.compat.keras.ctc_loss` |

Arguments, their order and their defaults are the other library's, and so, on ordinary
input, are values and gradients. Where the input has no loss, the answers are this
library's; each function says under "Differs" what that changes. None of the other
libraries is imported before it is used, and only `CTCLoss` uses one.
"""

from jax_ctc.compat import keras, optax, torch

__all__ = ["keras", "optax", "torch"]
