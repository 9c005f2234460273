"""`python -m jax_ctc diagnose FILE.npz`: the doctor on a saved batch; and `check`."""

import argparse
import io
import json
import pathlib
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_ctc
from jax_ctc._diagnose import Report, diagnose
from jax_ctc._output.progress import show_progress
from jax_ctc._output.visible import visible
from jax_ctc._output.whole import write_whole
from jax_ctc._self_check.command import add_to as add_check

_ARRAYS = ("logits", "labels", "logit_lengths", "label_lengths")
_NO_MEMORY = "RESOURCE_EXHAUSTED"  # how XLA's error of that kind starts
_ONE_ARRAY = b"\x93NUMPY"  # how an .npy file starts
# What a reader of zip files, or NumPy's of headers, says to bytes that are not theirs.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, SyntaxError),
    tokenize.TokenError,
)
_SINGLE = ("blank_id", "inputs", "wildcard_id", "wildcard_log_prob")
_OPTIONS = (*_SINGLE, "vocabulary")
_EPILOG = """\
FILE.npz holds the arguments of jax_ctc.diagnose by their names: logits and labels, and
as needed logit_lengths, label_lengths, blank_id, inputs, wildcard_id,
wildcard_log_prob, vocabulary. Save one with

  np.savez("batch.npz", logits=logits, labels=labels, logit_lengths=..., ...)

Exit code: 0 nothing above note, 1 findings above note, 2 the file or an option is bad.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _diagnose(options: argparse.Namespace) -> int:
    try:
        _check_page(options)
        report = diagnose(**load(options.file, options))
    except (OSError, TypeError, ValueError) as error:
        name = getattr(error, "filename", None) or options.file
        return _fail(f"{name}: {getattr(error, 'strerror', None) or error}")
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and _NO_MEMORY not in str(error):
            raise
        return _fail(
            f"{options.file}: too large for the memory here; save fewer utterances"
            f" ({error})"
        )
    try:
        if options.html:
            write_whole(options.html, report.to_html(track=_track))
        if options.json:
            _print_json(report)
        else:
            _print(report)
            if options.html:
                print(visible(f"saved {options.html}"))
    except (ModuleNotFoundError, OSError) as error:
        return _fail(str(error))
    return 1 if report.codes() else 0


def _fail(text: str) -> int:
    """Say in one line what is wrong, whoever named the file or what is in it."""
    print(visible(text), file=sys.stderr)
    return 2


def _check_page(options: argparse.Namespace) -> None:
    """Raise where the page would be written over what it is made of."""
    page = options.html
    for path in (options.file, options.vocabulary):
        if page and path and page.exists() and path.exists() and page.samefile(path):
            raise _Unfit(page, "--html would write the page over a file that it reads")


class _Unfit(ValueError):
    """A file that cannot serve, by name: it is not always the batch."""

    def __init__(self, path: pathlib.Path, text: str) -> None:
        super().__init__(text)
        self.filename, self.strerror = path, text


def load(path: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `diagnose` that the file and the options give.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no .npz file, or holds other things than the arguments.
    """
    with path.open("rb") as stream:
        if stream.read(len(_ONE_ARRAY)) == _ONE_ARRAY:
            raise ValueError("this is one array; save the batch by np.savez, by name")
        if not zipfile.is_zipfile(stream):
            raise ValueError("not an .npz file, as np.savez writes them")
        stream.seek(0)
        try:
            with np.load(stream, allow_pickle=False) as file:
                found = {name: _member(file, name) for name in file.files}
        except _DAMAGED as error:
            raise ValueError(f"damaged: {error}; save the batch once more") from error
    found = {name: array for name, array in found.items() if array is not None}
    known = (*_ARRAYS, *_OPTIONS)
    unknown = sorted(set(found) - set(known))
    if unknown:
        hint = ""
        if "log_probs" in unknown:
            hint = "; save log-probabilities as logits, and pass --inputs log_probs"
        raise ValueError(
            f"holds {', '.join(unknown)}, which `diagnose` does not take; it takes"
            f" {', '.join(known)}{hint}"
        )
    missing = [name for name in _ARRAYS[:2] if name not in found]
    if missing:
        raise ValueError(
            f"lacks {' and '.join(missing)}; it holds {', '.join(found) or 'nothing'}"
        )
    arguments: dict[str, Any] = {n: _array(array) for n, array in found.items()}
    for name in _SINGLE:
        if name in arguments:
            if arguments[name].ndim:
                raise ValueError(
                    f"{name} must be one value; got an array of shape"
                    f" {arguments[name].shape}"
                )
            arguments[name] = arguments[name].item()
    if "vocabulary" in arguments:
        arguments["vocabulary"] = arguments["vocabulary"].tolist()
    if options.vocabulary:
        arguments["vocabulary"] = _names(options.vocabulary)
    for name in _SINGLE:
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    return arguments


def _names(path: pathlib.Path) -> list[str]:
    """Return the lines of a file of names.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # a mark in front is no name
    except UnicodeDecodeError as error:
        raise _Unfit(
            path, f"not UTF-8, at byte {error.start}; save it as UTF-8"
        ) from error
    return text.removesuffix("\n").split("\n")


def _member(file: Any, name: str) -> np.ndarray | None:
    """Return an array of the file, or None where None was saved.

    Raises:
        ValueError: it is no array of numbers or text.
    """
    try:
        array = file[name]
    except ValueError as error:
        if "Object arrays" in str(error):
            if _is_none(file, name):
                return None
            raise ValueError(
                f"{name} holds Python objects; save an array of numbers, and leave out"
                " what is None"
            ) from error
        # NumPy has advice for files that one trusts, which nobody should follow here.
        detail = "" if "pickle" in str(error) else f": {error}"
        raise ValueError(f"{name} is damaged{detail}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no array, as np.savez writes them")
    return array


def _is_none(file: Any, name: str) -> bool:
    """Tell whether `name=None` was saved, by its bytes: a pickle may run any code."""
    none = io.BytesIO()
    np.save(none, np.array(None, object))
    return file.zip.read(f"{name}.npy") == none.getvalue()


def _array(array: np.ndarray) -> np.ndarray:
    """Return bfloat16 as such: NumPy saves it as two nameless bytes."""
    return array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array


def _track(utterances: Sequence[int]) -> Iterable[int]:
    return show_progress(utterances, "drawing flagged utterances")


def _print_json(report: Report) -> None:
    """Print JSON, escaped where the terminal cannot write all of its text."""
    text = report.to_json()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2)
    print(text)


def _print(report: Report) -> None:
    """Print tables, or plain text where rich is not installed."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print(report)
        print("for tables: pip install 'jax_ctc[doctor]'", file=sys.stderr)
        return
    # A pipe has no width of its own, and a cut figure is no figure.
    Console(width=None if sys.stdout.isatty() else 120).print(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jax_ctc", description="Exact CTC for JAX, on the command line."
    )
    parser.add_argument(
        "--version", action="version", version=f"jax_ctc {jax_ctc.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "diagnose",
        help="say why the loss of a saved batch is wrong",
        description="Say why the CTC loss of a saved batch is wrong.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", type=pathlib.Path, metavar="FILE.npz")
    command.add_argument(
        "--blank-id", type=int, help="the blank that the loss was given"
    )
    command.add_argument(
        "--inputs", choices=("logits", "log_probs"), help="what `logits` holds"
    )
    command.add_argument(
        "--wildcard-id", type=int, help="the label that stands for anything"
    )
    command.add_argument(
        "--wildcard-log-prob", type=float, help="nats of a frame that it takes"
    )
    command.add_argument(
        "--vocabulary",
        type=pathlib.Path,
        metavar="FILE.txt",
        help="names of the V classes, one a line",
    )
    command.add_argument(
        "--json", action="store_true", help="print JSON instead of tables"
    )
    command.add_argument(
        "--html",
        type=pathlib.Path,
        metavar="PAGE.html",
        help="also save one self-contained page, with pictures",
    )
    command.set_defaults(run=_diagnose)
    add_check(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
