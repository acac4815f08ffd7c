"""Rename a file so that nothing is ever overwritten."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

_RENAME_NOREPLACE = 1

RenameCall = Callable[[bytes, bytes], None]


def open_rename(folder: int) -> RenameCall:
    """Return a function that renames below an open folder and raises FileExistsError instead of replacing.

    Linux refuses in the same step (renameat2). Where the system or the file system has no such call, a look goes
    before the rename, and what another process writes in that moment is not seen.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return _looking_first(folder)
    call = library.renameat2
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    careful = _looking_first(folder)

    def rename(source: bytes, target: bytes) -> None:
        if call(folder, source, folder, target, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOSYS):
            careful(source, target)
            return
        raise OSError(number, os.strerror(number), os.fsdecode(source), None, os.fsdecode(target))

    return rename


def _looking_first(folder: int) -> RenameCall:
    def rename(source: bytes, target: bytes) -> None:
        try:
            os.lstat(target, dir_fd=folder)
        except FileNotFoundError:
            os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))

    return rename
