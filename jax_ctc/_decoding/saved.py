"""Models as files: arrays by name in a .npz, without pickles."""

import dataclasses
import json
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

_ABOUT = "about"  # the entry that says what the arrays are


def save(model: Any, path: Any, **classes: type) -> None:
    """Write a dataclass of arrays, ints and such dataclasses.

    classes: those that may occur in it, by the names that the file gives them.
    """
    names = {kind: name for name, kind in classes.items()}
    arrays: dict[str, np.ndarray] = {}

    def describe(value: Any, name: str) -> Any:
        if type(value) in names:
            fields = {
                field.name: describe(getattr(value, field.name), f"{name}{field.name}.")
                for field in dataclasses.fields(value)
            }
            return {"is": names[type(value)], **fields}
        if isinstance(value, int):
            return value
        arrays[name.removesuffix(".")] = np.asarray(value)
        return None

    about = json.dumps(describe(model, ""))
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **{_ABOUT: np.array(about)}, **arrays)


def load(path: Any, kind: type, **classes: type) -> Any:
    """Read what `save` wrote, if it is of this kind; ValueError where it is not."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays[_ABOUT]))
            holds = about["is"]
            if holds == kind.__name__:
                return _restore(about, arrays, "", classes)
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no file that `{kind.__name__}.save` wrote: {error}"
        ) from None
    raise ValueError(
        f"{path} holds a {holds}, not a {kind.__name__}: load it by {holds}.load"
    )


def _restore(about: Any, arrays: Any, name: str, classes: dict[str, type]) -> Any:
    if isinstance(about, dict):
        kind = classes[about["is"]]
        return kind(
            **{
                field.name: _restore(
                    about[field.name], arrays, f"{name}{field.name}.", classes
                )
                for field in dataclasses.fields(kind)
            }
        )
    if isinstance(about, int):
        return about
    return jnp.asarray(arrays[name.removesuffix(".")])
