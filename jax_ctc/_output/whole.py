"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil

# A folder that takes no new files, or a file that nothing may be renamed over.
_IN_PLACE_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
    """Put text, as UTF-8, or bytes into a file; a failure leaves the old file as it is.

    Written beside the file and then renamed, so that whoever opens it finds the old
    content or the new one. A device, a pipe and a file that can only be written in its
    place are written in their place.

    Raises:
        OSError: the file cannot be written.
        UnicodeEncodeError: the text holds half of a surrogate pair.
    """
    # What cannot be encoded must not cost the old file.
    data = content.encode("utf-8") if isinstance(content, str) else content
    target = pathlib.Path(os.path.realpath(path))  # through a link, not over it
    is_there = target.exists()
    if is_there and not (target.is_file() and os.access(target, os.W_OK)):
        target.write_bytes(data)
        return
    draft = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_there:
            shutil.copymode(target, draft)
        draft.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if not isinstance(error, OSError):
            raise
        if is_there and error.errno in _IN_PLACE_ONLY:
            target.write_bytes(data)
            return
        # By the name that the caller knows.
        raise OSError(error.errno, error.strerror, str(path)) from error
