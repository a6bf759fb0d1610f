"""The lock on an output folder: one run at a time writes there."""

import errno
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import TextIO

from filelock import SoftFileLease, Timeout

from settings import ConfigError

logger = logging.getLogger("blip.engine")

NAME = ".lock"
LEASE = ".lease"  # where a file system has no locks
PATIENCE = 3.0  # seconds for a run that was just killed to leave, or for a file server to answer
LEASE_SECONDS = 30.0  # after which a lease that nobody renews is another's
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class FolderLock:
    """Lets one run at a time write to a folder, from `take` until `release` or the end of the process, however it ends.

    It is a POSIX record lock on the file `.lock`: the kernel frees it with its process, forked loader workers do not
    inherit it, and NFS passes it on to the other machines. The file itself stays; it says who held the lock last.
    Where the file system refuses locks, or does not answer, a lease takes its place: a file `.lease`, renewed every 10
    s, which another run takes over at once where its process is dead, and after 30 s where its machine is.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._lease: SoftFileLease | None = None
        self._error: OSError | None = None

    def take(self, folder: Path) -> None:
        """Lock the folder. Raises ConfigError where another run holds it."""
        path = folder / NAME
        # In a thread of its own: a file server that does not answer would keep this one waiting for ever.
        attempt = threading.Thread(target=self._try, args=(path,), daemon=True)
        attempt.start()
        attempt.join(3 * PATIENCE)
        if attempt.is_alive():
            self._take_lease(folder, "its file server does not answer")
        elif isinstance(self._error, BlockingIOError):
            raise ConfigError(_refusal(folder))
        elif self._error is not None and self._error.errno in _UNSUPPORTED:
            self._take_lease(folder, os.strerror(self._error.errno))
        elif self._error is not None:
            raise self._error

    def _take_lease(self, folder: Path, reason: str) -> None:
        logger.info("%s cannot be locked (%s): the file %s there takes its place", folder / NAME, reason, LEASE)
        lease = SoftFileLease(folder / LEASE, lease_duration=LEASE_SECONDS)
        try:
            lease.acquire(timeout=LEASE_SECONDS + PATIENCE)
        except Timeout:
            raise ConfigError(_refusal(folder)) from None
        self._lease = lease
        (folder / NAME).write_text(_holder(), encoding="utf-8")

    def _try(self, path: Path) -> None:
        """Open and lock the file, and write into it who holds it; what fails is kept as `_error`."""
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
            try:
                _lock(file)
            except OSError:
                file.close()
                raise
            self._file = file
            file.truncate()
            file.write(_holder())
            file.flush()
        except OSError as error:
            self._error = error

    def release(self) -> None:
        """Free the folder for the next run."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def _holder() -> str:
    """What the file says of the process that holds the folder."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%F %T")})


def _lock(file: TextIO) -> None:
    """Raises BlockingIOError where another process holds the lock, and still does after `PATIENCE`."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        raise OSError(errno.ENOSYS, "no locks on this system") from None
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # either, says POSIX
            if time.monotonic() > deadline:
                raise BlockingIOError from None
            time.sleep(0.1)
        else:
            return


def _refusal(folder: Path) -> str:
    try:
        holder = json.loads((folder / NAME).read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = f"{folder / NAME} does not say which"
    return (
        f"another run ({who}) writes to {folder}, and two would mix their files: wait for it to end or stop it, or "
        "choose another --output_dir"
    )
