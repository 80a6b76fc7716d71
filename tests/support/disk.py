"""A small disk that fills up, or refuses to be written."""

import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest


class Disk:
    """A small file system of its own where this user may mount one, else calls that fail alike."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, size: str = "4m") -> None:
        self.folder, self.patch = folder, patch
        folder.mkdir()
        self.real = self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def _mount(self, *options: str) -> bool:
        command = ["mount", *options, str(self.folder)]
        with suppress(OSError):
            return subprocess.run(command, capture_output=True).returncode == 0
        return False

    def fill(self) -> None:
        if not self.real:
            self.patch.setattr(os, "fsync", full)
            return
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def protect(self) -> None:
        if self.real:
            assert self._mount("-o", "remount,ro")
        elif os.geteuid() == 0:
            pytest.skip("root writes anywhere, and may not mount here")
        else:
            self.folder.chmod(0o555)

    def free(self) -> None:
        self.patch.undo()
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", str(self.folder)], check=True)
        else:
            self.folder.chmod(0o755)


def full(_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
