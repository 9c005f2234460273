"""The doctor beside a training loop: it looks on, and a step never waits for it."""

import collections
import copy
import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.arrays import check_scores
from jax_ctc._checks.given import Index, Number, Option, Vocabulary
from jax_ctc._checks.options import (
    check_blank_id,
    check_count,
    check_option,
    check_wildcard_id,
    check_wildcard_log_prob,
)
from jax_ctc._checks.vocabularies import check_vocabulary
from jax_ctc._diagnose import Report, diagnose
from jax_ctc._diagnose.here import Status, fetch, own_rows
from jax_ctc._diagnose.worker import Worker, checkpoint

# Batches whose status is not known yet: a host may run some steps ahead of a device.
_KEEP = 8

_INPUTS = ("logits", "log_probs")


@dataclasses.dataclass
class _Step:
    """A step that may yet be asked about."""

    number: int
    window: int
    status: Status
    rows: np.ndarray | None  # of the leading axis, those of this process; None: all
    batch: tuple[Any, ...] | None  # what is on a device; None: let go
    is_probe: bool = False  # looked at though it is not flagged


def watch(
    *,
    every: Index = 16,
    keep: Index | None = None,
    on_report: Callable[[int, Report], None] | None = None,
    most_reports: Index = 4,
    probe_every: Index | None = None,
    blank_id: Index = 0,
    inputs: Option = "logits",
    vocabulary: Vocabulary | None = None,
    wildcard_id: Index | None = None,
    wildcard_log_prob: Number = 0.0,
) -> "Watch":
    """Return a watch to call once per training step; it diagnoses flagged batches.

    With each call the step's status starts its way to the host, and is looked at in a
    later call, once it has arrived. A batch without a bit is let go there and then; the
    first one with a bit, of each `every` steps, is diagnosed in a thread of its own. No
    call waits for the device, for a copy or for a diagnosis, and nothing is computed on
    a device: the arrays may be sharded over the batch, or come from `pmap`. Of several
    processes each looks at its own utterances, and any of them may do without a watch.

    Most mistakes raise no bit. With `probe_every` a batch is diagnosed now and then
    whether it is flagged or not, and reported if anything above note is found.

    Args:
        every: steps that make one report at most.
        keep: batches to hold on to while their status is on its way. A device that is
            further behind the host than that loses some, which is said if one of
            them was flagged. Default: 8.
        on_report: called with (step, report), in the thread of the diagnosis. Default:
            print the report on stderr.
        most_reports: diagnoses before the watch only counts: a broken pipeline flags
            every step, and the fifth report says what the first did. As many probes
            are reported at most.
        probe_every: steps between two batches that are looked at though no bit is set,
            the first step among them; one is left out while another is being looked at.
            Default: none is.
        blank_id: as for `diagnose`.
        inputs: as for `diagnose`.
        vocabulary: as for `diagnose`.
        wildcard_id: as for `diagnose`.
        wildcard_log_prob: as for `diagnose`.

    Returns:
        Watch: call it with (status, logits, labels, logit_lengths, label_lengths), the
        device arrays of the step; `reports` are the (step, report) pairs so far;
        `close()` waits for the last ones, and `with` does it by itself. Nothing waits
        for them after Ctrl-C.

    Raises:
        TypeError: `every`, `keep`, `most_reports`, `probe_every` or `blank_id` is no
            int, or `vocabulary` is neither a sequence nor a mapping of strings.
        ValueError: one of them is too small, or `inputs` has an unknown value.

    Cost:
        A copy of the status to the host per step. Device memory: `keep` batches at most
        while the device is behind, one as a rule; and up to `most_reports` flagged ones
        in all, until their diagnosis has begun; none once `most_reports` were
        diagnosed. Arguments on the host are copied, for a loader may fill them anew. A
        diagnosis costs what `diagnose` does, on the CPU backend where there is one.

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
    every = check_count(every, name="every")
    keep = _KEEP if keep is None else check_count(keep, name="keep")
    most_reports = check_count(most_reports, name="most_reports")
    if probe_every is not None:
        probe_every = check_count(probe_every, name="probe_every")
    check_option(inputs, _INPUTS, name="inputs")
    check_classes = functools.partial(_check_classes, blank_id, vocabulary)
    check_classes(None)  # how many there are, the first step tells
    vocabulary = copy.copy(vocabulary)  # the first report may be hours away
    wildcard = check_wildcard_id(wildcard_id, int(blank_id))
    check_wildcard_log_prob(wildcard_log_prob, wildcard)
    examine = functools.partial(
        diagnose,
        blank_id=blank_id,
        inputs=inputs,
        vocabulary=vocabulary,
        wildcard_id=wildcard,
        wildcard_log_prob=wildcard_log_prob,
    )
    return Watch(
        *(every, keep, on_report or _print, most_reports, check_classes, examine),
        probe_every=probe_every,
    )


class Watch:
    """See `watch`. Not for use from several threads at once."""

    def __init__(
        self,
        every: int,
        keep: int,
        on_report: Callable[[int, Report], None],
        most_reports: int,
        check_classes: Callable[[int], None],
        examine: Callable[..., Report],
        *,
        probe_every: int | None = None,
    ) -> None:
        """Start with nothing seen; `watch` checks the arguments."""
        self.reports: list[tuple[int, Report]] = []
        self.num_steps = 0
        self.num_flagged = 0  # windows in which some status had a bit set
        self.num_probed = 0  # batches looked at though no bit was set
        self._probe_every = probe_every
        self._is_probing = False  # the doctor's thread ends it
        self._found = 0  # probes that were reported; that thread counts
        self._every, self._keep, self._most = every, keep, most_reports
        self._check_classes = check_classes
        self._examine, self._on_report = examine, on_report
        self._steps: collections.deque[_Step] = collections.deque()
        self._flagged = -1  # the last window that was
        self._gone = -1  # the last window with a flagged batch that was let go
        self._asked: set[int] = set()  # windows with a diagnosis
        self._is_closed = False
        self._worker = Worker()

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied, as part of a training state, say."""
        raise TypeError(
            "a Watch cannot be pickled or copied: it holds a thread, and arrays on a"
            " device. Leave it out of the state, and make one in each process by"
            " jax_ctc.watch(...)"
        )

    def __call__(
        self,
        status: Any,
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

        Raises:
            TypeError: `status` is no array of integers, or traced; or, at the first
                step, `logits` are no scores.
            ValueError: at the first step, the logits have not the class `blank_id`, or
                more or fewer classes than `vocabulary`.
            RuntimeError: the watch is closed, or the batch was donated.
        """
        if self._is_closed:
            raise RuntimeError("this watch is closed: call it before `close()`")
        arriving = Status(_checked(status))
        if self.num_steps == 0:  # a mistake should not wait for the first flag
            self._check_classes(check_scores(logits).shape[-1])
        batch = rows = None
        is_probe = self._is_due()
        if len(self._asked) < self._most or is_probe:
            batch = (logits, labels, logit_lengths, label_lengths)
            if any(_is_deleted(argument) for argument in batch):
                raise RuntimeError(_donated(self.num_steps))
            batch, rows = tuple(map(_held, batch)), own_rows(logits)
        window = self.num_steps // self._every
        self._steps.append(
            _Step(self.num_steps, window, arriving, rows, batch, is_probe)
        )
        if len(self._steps) > self._keep:  # a slow device: what is oldest is let go
            self._steps[-1 - self._keep].batch = None
        self.num_steps += 1
        self._look(wait=False)

    def close(self) -> list[tuple[int, Report]]:
        """Wait for what is on its way, and return all (step, report) pairs.

        Raises:
            RuntimeError: a flagged batch was donated before it could be diagnosed.
            Exception: whatever `on_report` or a diagnosis raised. Either was printed on
                stderr when it happened.
        """
        self._is_closed = True
        self._look(wait=True)
        self._end_window()
        self._worker.finish()
        return self.reports

    def __enter__(self) -> "Watch":
        """Return the watch."""
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Close, unless an error is on its way already."""
        self._is_closed = True
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self._worker.let_go()
        else:  # what is being diagnosed may be why
            self._worker.drop()

    def _look(self, *, wait: bool) -> None:
        """Read the statuses that have arrived; the others can wait."""
        while self._steps and (wait or self._steps[0].status.is_here()):
            step = self._steps.popleft()
            if step.window > max(self._gone, self._flagged):
                self._end_window()
            if not step.status.is_flagged(step.rows):
                self._probe(step)
                continue
            self.num_flagged += step.window != self._flagged
            self._flagged, step.is_probe = step.window, False
            if step.window in self._asked or len(self._asked) == self._most:
                continue
            if step.batch is None:
                self._gone = step.window
            else:
                self._ask(step)

    def _is_due(self) -> bool:
        """Tell whether the next step is one to look at in any case."""
        if self._probe_every is None or self._found >= self._most:
            return False
        return self.num_steps % self._probe_every == 0

    def _probe(self, step: _Step) -> None:
        """Hand a batch without a bit to the doctor's thread, unless that is busy."""
        if step.is_probe and step.batch is not None and not self._is_probing:
            self._is_probing = True
            self.num_probed += 1
            self._worker.submit(functools.partial(self._diagnose, step))

    def _end_window(self) -> None:
        """Say that a flagged batch was let go, if no other of its window was asked."""
        if self._gone >= 0 and self._gone not in self._asked:
            warnings.warn(
                "a batch was flagged, but was no longer at hand when its status came:"
                " call `watch` with a larger `keep`",
                stacklevel=4,
            )
        self._gone = -1

    def _ask(self, step: _Step) -> None:
        """Hand a flagged batch to the doctor's thread; after the last, hold none."""
        self._asked.add(step.window)
        if len(self._asked) == self._most:
            for other in self._steps:
                if not other.is_probe:
                    other.batch = None
        self._worker.submit(functools.partial(self._diagnose, step))

    def _diagnose(self, step: _Step) -> None:
        """Diagnose a step; this thread may wait for its arrays.

        What goes wrong here would be seen at the end of the training, if ever.
        """
        try:
            batch = _on_host(step)
            with jax.default_device(_host_device()):
                report = self._examine(*batch)
            checkpoint()  # after Ctrl-C nobody wants to read it
            if step.is_probe:
                if not report.codes() or self._found >= self._most:
                    return
                self._found += 1
            self.reports.append((step.number, report))
            self._on_report(step.number, report)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            why = "was probed" if step.is_probe else "was flagged"
            print(f"step {step.number} {why}, but {what}", file=sys.stderr)
            raise
        finally:
            if step.is_probe:
                self._is_probing = False


def _on_host(step: _Step) -> tuple[Any, ...]:
    """Return the batch on the host, or raise."""
    assert step.batch is not None
    try:
        return fetch(step.batch, step.rows)
    except RuntimeError as error:
        if any(_is_deleted(argument) for argument in step.batch):
            raise RuntimeError(_donated(step.number)) from error
        raise


def _check_classes(blank_id: Any, vocabulary: Any, num_classes: int | None) -> None:
    check_blank_id(blank_id, num_classes)
    check_vocabulary(vocabulary, num_classes)


def _donated(step: int) -> str:
    return (
        f"`watch` cannot look at step {step}: arrays of its batch are deleted, because"
        " they were donated to a jitted function. Do not donate the batch (see"
        " donate_argnums of jax.jit), or pass the watch a copy: jnp.copy(logits)"
    )


def _checked(status: Any) -> Any:
    """Return the status, or raise."""
    if isinstance(status, Tracer):
        raise TypeError(
            "`status` is traced: call the watch outside `jax.jit`, with the status that"
            " the step returns"
        )
    is_array = isinstance(status, jax.Array | np.ndarray | np.integer)
    if not is_array or not jnp.issubdtype(status.dtype, jnp.integer):
        raise TypeError(
            "`status` must be the int32 array that `ctc_loss_with_status` returns; got"
            f" {getattr(status, 'dtype', type(status).__name__)}"
        )
    return status


def _held(argument: Any) -> Any:
    """Return an array on a device as it is, and a copy of what is on the host."""
    return argument if isinstance(argument, jax.Array) else copy.deepcopy(argument)


def _is_deleted(argument: Any) -> bool:
    return isinstance(argument, jax.Array) and argument.is_deleted()


def _host_device() -> Any:
    """Return a CPU where there is one, so that an accelerator keeps training."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _print(step: int, report: Report) -> None:
    of = f" of process {jax.process_index()}" if jax.process_count() > 1 else ""
    print(f"step {step}{of}: {report}", file=sys.stderr)
