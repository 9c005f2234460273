"""The doctor beside a training loop: it looks on, and a step never waits for it."""

import collections
import concurrent.futures
import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ctc._diagnose import Report, diagnose
from jax_ctc._types import Index, Option, Vocabulary


class _Step(NamedTuple):
    """A step that may yet be asked about: references, nothing copied."""

    number: int
    bits: jax.Array  # [] int32 on the device, the OR over its utterances
    batch: tuple[Any, ...]


class _Window(NamedTuple):
    """The OR of the statuses of some steps, on its way to the host."""

    last: int
    bits: jax.Array


def watch(
    *,
    every: Index = 16,
    keep: Index | None = None,
    on_report: Callable[[int, Report], None] | None = None,
    most_reports: Index = 4,
    blank_id: Index = 0,
    inputs: Option = "logits",
    vocabulary: Vocabulary | None = None,
) -> "Watch":
    """Return a watch to call once per training step; it diagnoses flagged batches.

    Each call ORs the step's status into one number on the device. Every `every` steps
    that number starts its way to the host, and is looked at in a later step, once it
    has arrived. If a bit is set, the batches still at hand whose own status has one are
    diagnosed in a thread of their own. No call waits for the device, for a copy or for
    a diagnosis.

    Args:
        every: steps between two looks.
        keep: batches to hold references to. Their memory stays in use, so return no
            more than you need from a step. Default: every + 8, which loses none as
            long as the device is no more than 8 steps behind the host.
        on_report: called with (step, report), in the thread of the diagnosis. Default:
            print the report on stderr.
        most_reports: diagnoses before the watch only counts: a broken pipeline flags
            every step, and the fifth report says what the first did.
        blank_id: as for `diagnose`.
        inputs: as for `diagnose`.
        vocabulary: as for `diagnose`.

    Returns:
        Watch: call it with (status, logits, labels, logit_lengths, label_lengths), the
        device arrays of the step; `reports` are the (step, report) pairs so far;
        `close()` waits for the last ones, and `with` does it by itself.

    Raises:
        ValueError: `every`, `keep` or `most_reports` is below 1.

    Cost:
        Two tiny dispatches per step, `keep` batches of memory, and what `diagnose`
        costs for each flagged batch, on the CPU backend where there is one.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> logits, labels = jnp.zeros((2, 4, 5)), jnp.array([[1, 2], [3, 7]])
        >>> with jax_ctc.watch(every=2, on_report=lambda step, report: None) as look:
        ...     for step in range(4):
        ...         loss, status = jax_ctc.ctc_loss_with_status(logits, labels)
        ...         look(status, logits, labels)
        >>> look.reports[0][1].findings[0].code
        'LABEL_OUT_OF_RANGE'
    """
    kept = every + 8 if keep is None else keep
    for name, value in (
        ("every", every),
        ("keep", kept),
        ("most_reports", most_reports),
    ):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}")
    examine = functools.partial(
        diagnose, blank_id=blank_id, inputs=inputs, vocabulary=vocabulary
    )
    return Watch(every, kept, on_report or _print, most_reports, examine)


class Watch:
    """See `watch`. Not for use from several threads at once."""

    def __init__(
        self,
        every: int,
        keep: int,
        on_report: Callable[[int, Report], None],
        most_reports: int,
        examine: Callable[..., Report],
    ) -> None:
        """Start with nothing seen; `watch` checks the arguments."""
        self.reports: list[tuple[int, Report]] = []
        self.num_steps = 0
        self.num_flagged = 0  # windows in which some status had a bit set
        self._every, self._most = every, most_reports
        self._examine, self._on_report = examine, on_report
        self._steps: collections.deque[_Step] = collections.deque(maxlen=keep)
        self._windows: collections.deque[_Window] = collections.deque()
        self._seen: jax.Array | None = None
        self._asked = 0
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._work: list[concurrent.futures.Future] = []

    def __call__(
        self,
        status: jax.Array,
        logits: Any,
        labels: Any,
        logit_lengths: Any = None,
        label_lengths: Any = None,
    ) -> None:
        """Take note of one step; returns at once.

        Args:
            status: [...] int32 from `ctc_loss_with_status`, on the device.
            logits: [..., T, V] what the loss got.
            labels: [..., U].
            logit_lengths: [...] or None.
            label_lengths: [...] or None.
        """
        bits = _any_bits(status)
        batch = (logits, labels, logit_lengths, label_lengths)
        self._steps.append(_Step(self.num_steps, bits, batch))
        self._seen = bits if self._seen is None else _either(self._seen, bits)
        self.num_steps += 1
        if self.num_steps % self._every == 0:
            self._send()
        self._look(wait=False)

    def close(self) -> list[tuple[int, Report]]:
        """Wait for what is on its way, and return all (step, report) pairs.

        Raises:
            Exception: whatever `on_report` or a diagnosis raised.
        """
        self._send()
        self._look(wait=True)
        self._thread.shutdown(wait=True)
        for future in self._work:
            future.result()
        self._work.clear()
        return self.reports

    def __enter__(self) -> "Watch":
        """Return the watch."""
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Close, unless an error is on its way already."""
        if kind is None:
            self.close()
        else:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self) -> None:
        """Start the copy of what was seen since the last one."""
        if self._seen is not None:
            self._seen.copy_to_host_async()
            self._windows.append(_Window(self.num_steps - 1, self._seen))
            self._seen = None

    def _look(self, *, wait: bool) -> None:
        """Read the windows that have arrived; the others can wait."""
        while self._windows and (wait or _is_ready(self._windows[0].bits)):
            window = self._windows.popleft()
            if int(np.asarray(window.bits)):
                self.num_flagged += 1
                self._ask(window.last)

    def _ask(self, last: int) -> None:
        """Hand the kept batches up to a step to the doctor's thread, flagged or not."""
        if self._asked >= self._most:
            return
        steps = [step for step in self._steps if step.number <= last]
        for step in steps:
            self._steps.remove(step)  # asked once
        self._asked += 1
        self._work.append(self._thread.submit(self._diagnose, steps))

    def _diagnose(self, steps: list[_Step]) -> None:
        """Diagnose the first flagged step; this thread may wait for its arrays."""
        flagged = [step for step in steps if int(np.asarray(step.bits))]
        if not flagged:
            warnings.warn(
                "a batch was flagged, but was no longer at hand when its status came:"
                " call `watch` with a larger `keep`",
                stacklevel=2,
            )
            return
        step = flagged[0]
        batch = jax.device_get(step.batch)
        with jax.default_device(_host_device()):
            report = self._examine(*batch)
        self.reports.append((step.number, report))
        self._on_report(step.number, report)


@jax.jit
def _any_bits(status: jax.Array) -> jax.Array:
    """Return the OR over all utterances."""
    bits = status.ravel().astype(jnp.int32)
    return lax.reduce(bits, np.int32(0), lax.bitwise_or, (0,))


@jax.jit
def _either(a: jax.Array, b: jax.Array) -> jax.Array:
    return a | b


def _is_ready(array: Any) -> bool:
    """Tell whether reading the array would not wait."""
    return array.is_ready()


def _host_device() -> Any:
    """Return a CPU where there is one, so that an accelerator keeps training."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _print(step: int, report: Report) -> None:
    print(f"step {step}: {report}", file=sys.stderr)
