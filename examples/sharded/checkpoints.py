"""Checkpoints by Orbax, written by all processes together, and the log beside them.

A checkpoint counts once Orbax has renamed its directory, after every process has
written its part: a run killed in the middle of that resumes from the one before.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

CHECKPOINTS, LOG, SETTINGS = "checkpoints", "log.jsonl", "settings.json"


class Checkpoints:
    """The state of training after some steps, of which the last two are kept.

    `start` is the step to resume from: the last one there was on opening, or 0.
    """

    def __init__(self, folder: Path):
        """Opens `folder`, which all processes can reach."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        path = (folder / CHECKPOINTS).resolve()
        self._manager = ocp.CheckpointManager(path, options=options)
        self.start = self._manager.latest_step() or 0

    def save(self, step: int, state: Any) -> None:
        """Saves in the background; every process calls this."""
        self._manager.save(step, args=ocp.args.StandardSave(_plain(state)))

    def restore(self, step: int, state: Any) -> Any:
        """Returns the state of `step`, placed on devices as `state` is."""
        plain = _plain(state)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, plain)
        found = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return jax.tree.map(_like, state, found)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def saved_step(folder: Path) -> int:
    """Returns the last step whose checkpoint is wholly written; 0 without one.

    Orbax itself counts those that it is still writing.
    """
    names = (path.name for path in (folder / CHECKPOINTS).glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


class Log:
    """One line of JSON per step, written as it happens, by process 0 only."""

    def __init__(self, folder: Path, resumed_from: int):
        """Opens the log and forgets what came after the checkpoint."""
        self._path = folder / LOG
        kept = [row for row in read_log(folder) if row["step"] <= resumed_from]
        _write(self._path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line that survives the death of this process."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a log, the oldest first; none where there is no log."""
    path = folder / LOG
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # killed in the middle of it
            break
    return rows


def find_other_run(folder: Path, settings: dict[str, Any]) -> str | None:
    """Says which setting differs from those of the run in `folder`, or None."""
    path = folder / SETTINGS
    noted = json.loads(path.read_text()) if path.exists() else {}
    for name, value in noted.items():
        if settings.get(name) != value:
            flag = name.replace("_", "-")
            return (
                f"--{flag} is {settings.get(name)}, but {folder} holds a run with"
                f" {value}: pass --{flag} {value} to resume it, or another --out"
            )
    return None


def note_run(folder: Path, settings: dict[str, Any]) -> None:
    """Notes the settings of the run in `folder`, for whoever resumes it."""
    _write(folder / SETTINGS, json.dumps(settings))


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all: others may be reading, or this be killed."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(state: Any) -> Any:
    """Turns random keys into the integers they are made of."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _like(leaf: jax.Array, found: jax.Array) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(found, impl=jax.random.key_impl(leaf))
    return found
