"""What every test runs under: 8 CPU devices, strict JAX, nothing downloaded."""

import functools
import gc
import itertools
import os
import pathlib
import threading

# Before JAX starts: sharding tests need several devices, and CPU is what everybody has.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest
from jax._src import compiler
from jax._src.interpreters import mlir
from jax.experimental.compilation_cache import compilation_cache

MAPS = pathlib.Path("/proc/self/maps")
TESTS = itertools.count(1)
CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"


def pytest_configure(config):
    """Declare the markers; keep what is compiled for the next run.

    Two thirds of a run compile. A program's key is its hash, so none is ever stale;
    `make clean` drops them.
    """
    config.addinivalue_line(
        "markers", "relaxed: runs other people's code, which promotes ranks and dtypes"
    )
    config.addinivalue_line("markers", "optimised: of numbers as users get them")
    config.addinivalue_line(
        "markers", "as_planned: of memory and messages as users have them: XLA's part"
    )
    config.addinivalue_line(
        "markers", "fast: for the edit loop, a minute in all; make test ARGS='-m fast'"
    )
    config.addinivalue_line(
        "markers",
        "slow: dear; `make check` runs them as well, and `make test` does not",
    )
    config.addinivalue_line(
        "markers", "exhaustive: more of what others show already; `make exhaustive`"
    )
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Tracing makes many objects that live on: to look through them costs a tenth.
    gc.set_threshold(100_000, 20, 100)
    if jax.__version_info__ < (0, 12):
        mlir.make_ir_context = few_contexts(mlir.make_ir_context)
    # For fixtures of modules as well, which come before any of a test.
    jax.config.update("jax_disable_most_optimizations", True)
    compiler.get_compile_options = with_less(compiler.get_compile_options)


def few_contexts(make_ir_context):
    """Return what makes a context of MLIR for ten programs, as JAX 0.12 does by itself.

    To load its dialects takes 5 ms a program: as long as to lower one operation. Where
    XLA calls back from a thread of its own, that thread ends with the call.
    """
    context, left = None, 0

    @functools.wraps(make_ir_context)
    def make():
        nonlocal context, left
        if threading.current_thread() is not threading.main_thread():
            return make_ir_context()
        if not left:
            context, left = make_ir_context(), 10
        left -= 1
        return context

    return make


@pytest.fixture(autouse=True)
def strict_jax(request):
    """Forbid implicit rank and dtype promotion: users may, and so the library must."""
    if request.node.get_closest_marker("relaxed"):
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def with_less(get_compile_options):
    """Return what tells XLA's options, on a CPU those of the doctor's among them.

    JAX has no setting for them. They are looked up where a program is compiled first:
    by then what is imported is annotated.
    """
    quickly = None

    @functools.wraps(get_compile_options)
    def get(*arguments, backend=None, **options):
        nonlocal quickly
        found = get_compile_options(*arguments, backend=backend, **options)
        if backend is not None and backend.platform == "cpu":
            if quickly is None:
                quickly = []  # of the programs that tell which there are
                from jax_ctc._diagnose.quickly import QUICKLY, known_options

                quickly = list(known_options(QUICKLY).items())
            found.env_option_overrides = [*found.env_option_overrides, *quickly]
        return found

    return get


@pytest.fixture(autouse=True)
def optimisations(request):
    """Let XLA optimise as users have it, where a test is marked so, and else little.

    A program compiles in a fifth of the time then. What lies in memory and what is sent
    XLA plans before LLVM sees it: where a test is marked `as_planned`, LLVM alone does
    little, and a program compiles in half the time.
    """
    is_optimised = request.node.get_closest_marker("optimised") is not None
    if not (is_optimised or request.node.get_closest_marker("as_planned")):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        as_ever = compiler.get_compile_options.__wrapped__
        patch.setattr(compiler, "get_compile_options", as_ever)
        jax.config.update("jax_disable_most_optimizations", not is_optimised)
        yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Drop compiled programs before Linux does: XLA crashes at 65,530 memory maps."""
    yield
    # To count them takes 10 ms, and 20 tests make a few thousand.
    is_due = next(TESTS) % 20 == 0 and MAPS.exists()
    if is_due and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture
def nothing_stored():
    """Read no program that was compiled before, and store none."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def both_ends():
    """Let a module ask for `implementation="both_ends"`, what accelerators run."""
    from tests.both_ends import register

    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        yield


@pytest.fixture
def x64():
    """Run a test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
