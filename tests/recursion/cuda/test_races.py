"""ThreadSanitizer on the CUDA kernels: it finds nothing, and would find what is there.

Threads of a block are threads to it, and barriers are all that orders them. Each
barrier is taken out in turn; then it must report.
"""

import functools
import os
import subprocess

import pytest

from jax_ctc._recursion.cuda import plan
from tests.cases import more
from tests.recursion.cuda import emulator

OPTIONS = ("-g", "-fsanitize=thread")

# Several warps that walk; several for a lane's labels; one warp for all roles, with
# emissions of one step at hand; a row that a block of threads goes through.
PROBLEMS = {
    "three warps": (1, 40, 6, 70),
    "two a lane": (1, 24, 6, 150),
    "eight a lane": (1, 24, 6, 640),
    "one step at hand": (1, 6, 2200, 2150),
    "wide": (1, 2, 4100, 1),
}

# Every barrier of the source, and a problem that needs it.
BARRIERS = {
    (0, "a row's peak"): "wide",
    (1, "a row's sums"): "wide",
    (2, "the first emissions"): "three warps",
    (3, "emissions of one step"): "one step at hand",
    (4, "emissions and edges"): "three warps",
    (5, "occupancies, for who writes"): "three warps",
    (6, "what was laid down"): "three warps",
    (7, "the end of a turn"): "eight a lane",
}


@functools.cache
def why_not():
    """Say why there is no ThreadSanitizer, or None."""
    if emulator.COMPILER is None:
        return "no C++ compiler: g++ or clang++"
    try:
        emulator.built("race.cc", *OPTIONS)
    except subprocess.CalledProcessError as fault:
        return f"{emulator.COMPILER} has no ThreadSanitizer: {fault.stderr[-200:]}"
    run = sanitized("three warps")
    if "unexpected memory mapping" in run.stderr:  # address randomisation of the kernel
        return "ThreadSanitizer does not run on this machine"
    return None


@pytest.fixture(autouse=True)
def sanitizer():
    """Skip where there is none."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@functools.cache
def sanitized(name, without=-1):
    """Run a problem, all barriers in place or one left out."""
    batch, frames, classes, labels = PROBLEMS[name]
    there, back = plan.Layout.there(labels), plan.Layout.back(labels)
    numbers = (
        *(batch, frames, classes, labels),
        *(there.labels, there.threads, back.labels, back.threads),
        *(8, -(-frames // 16)),  # groups of 8 frames
        *plan.rows_per_block(classes),
        without,
    )
    return subprocess.run(
        [emulator.built("race.cc", *OPTIONS), *map(str, numbers)],
        env=os.environ | {"TSAN_OPTIONS": f"halt_on_error={int(without >= 0)}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [x if n == 1 else more(x) for n, x in enumerate(PROBLEMS)]
)
def test_no_races(name):
    """All barriers in place."""
    run = sanitized(name)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.splitlines()[0]) < 0


@pytest.mark.slow
@pytest.mark.parametrize(("barrier", "name"), BARRIERS.items(), ids=lambda x: str(x))
def test_every_barrier_is_needed(barrier, name):
    """One of them left out, a race is found."""
    run = sanitized(name, without=barrier[0])
    assert "WARNING: ThreadSanitizer: data race" in run.stderr


def test_no_barrier_is_forgotten():
    """The list above has every number in the source."""
    import re

    text = "".join(path.read_text() for path in emulator.SOURCE.glob("*.h"))
    calls = re.findall(r"meet_(?:block|crew)\(([^,)]*)", text)
    numbers = {int(n) for call in calls for n in re.findall(r"\b\d+\b", call)}
    assert numbers - {0} <= {number for number, _ in BARRIERS}
    assert len(BARRIERS) == max(numbers) + 1
