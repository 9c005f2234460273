"""What every example with the reader says when a package is missing.

Nothing but the standard library is imported here: it has to work without the rest.
"""

import sys

NEEDED = {
    *("flax", "jax", "jax_ctc", "matplotlib", "optax", "orbax", "rich", "sklearn"),
    "tyro",
}


def explain_missing(error: ModuleNotFoundError) -> int:
    """Prints what to install and returns 1; raises what is no missing package."""
    if error.name is None or error.name.split(".")[0] not in NEEDED:
        raise error
    fix = "pip install 'jax_ctc[examples]'"
    print(f"this example needs {error.name}: {fix}", file=sys.stderr)
    return 1
