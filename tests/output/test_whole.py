"""A file holds the old content or the new one, whatever goes wrong."""

import os
import pathlib
import stat

import pytest

from jax_ctc._output import whole
from jax_ctc._output.whole import write_whole

pytestmark = pytest.mark.fast


@pytest.fixture
def old(tmp_path):
    """A file with an hour's work in it."""
    path = tmp_path / "old.txt"
    path.write_text("an hour of work")
    return path


@pytest.mark.parametrize("content", ["né\n", b"n\xc3\xa9\n"])
def test_text_and_bytes(content, old):
    new = old.with_name("new.txt")
    for path in (old, new):
        write_whole(path, content)
        assert path.read_bytes() == b"n\xc3\xa9\n"
    assert sorted(path.name for path in old.parent.iterdir()) == ["new.txt", "old.txt"]


def test_what_cannot_be_encoded_costs_nothing(old):
    with pytest.raises(UnicodeEncodeError):
        write_whole(old, "\udc80")
    assert old.read_text() == "an hour of work"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_on_the_way_costs_nothing(step, error, old, monkeypatch):
    """A full disk says the name that the caller gave, and no draft is left."""

    def fail(*_):
        raise error

    monkeypatch.setattr(
        *((os, "fsync") if step == "fsync" else (pathlib.Path, step)), fail
    )
    with pytest.raises(type(error)) as caught:
        write_whole(old, "new")
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (28, str(old))
    assert [path.read_text() for path in old.parent.iterdir()] == ["an hour of work"]


def test_permissions_and_links_stay(old):
    old.chmod(0o640)
    link = old.with_name("link.txt")
    link.symlink_to(old)
    write_whole(link, "new")
    assert link.is_symlink()
    assert old.read_text() == "new"
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_new_file_is_as_open_makes_it(old):
    write_whole(old.with_name("new.txt"), "")
    old.with_name("other.txt").write_text("")
    modes = {old.with_name(f"{name}.txt").stat().st_mode for name in ("new", "other")}
    assert len(modes) == 1


def test_what_nothing_may_be_renamed_over_is_written_in_place(old, monkeypatch):
    """A folder that takes no new files, or a mount."""

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(pathlib.Path, "replace", busy)
    write_whole(old, "new")
    assert old.read_text() == "new"
    with pytest.raises(OSError, match="busy"):
        write_whole(old.with_name("none.txt"), "new")
    assert list(old.parent.iterdir()) == [old]


def test_a_device_is_no_file_to_replace():
    write_whole(pathlib.Path("/dev/null"), "x")
    assert not pathlib.Path("/dev/null").is_file()


def test_where_there_is_no_folder():
    path = pathlib.Path("/dev/null/page.html")
    with pytest.raises(NotADirectoryError) as caught:
        write_whole(path, "x")
    assert caught.value.filename == str(path)


def test_a_file_that_is_write_protected_stays(old, monkeypatch):
    """It could be renamed over, and that is not what its owner asked for."""
    monkeypatch.setattr(whole.os, "access", lambda *_: False)  # root may write it
    old.chmod(0o444)
    number = old.stat().st_ino
    try:
        write_whole(old, "new")
    except PermissionError:
        assert old.read_text() == "an hour of work"
    assert old.stat().st_ino == number
