"""A small real file system: ext4 in a file, mounted through a loop device. Needs root."""

import fcntl
import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Volume:
    """A file system of 20 MB; `close` removes the mount and the loop device."""

    def __init__(self, directory: Path) -> None:
        self.mount_point = directory / "volume"
        self._image = directory / "volume.img"
        self._device: str | None = None
        self._is_mounted = False
        self.mount_point.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(20 << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "1024", str(self._image))

    def mount(self, options: str = "errors=remount-ro") -> None:
        """Mount the file system with an empty page cache."""
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("mount", "-o", options, self._device, str(self.mount_point))
        self._is_mounted = True

    def unmount(self) -> None:
        """Undo a complete or partial `mount`."""
        if self._is_mounted:
            _run("umount", str(self.mount_point))
            self._is_mounted = False
        if self._device is not None:
            _run("losetup", "--detach", self._device)
            self._device = None

    def fill(self) -> Path:
        """Fill the remaining space with a file and return it."""
        ballast = self.mount_point / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                return ballast

    def remount_read_only(self) -> None:
        """Trigger a file system error, on which the kernel makes the file system read-only."""
        assert self._device is not None
        Path("/sys/fs/ext4", Path(self._device).name, "trigger_fs_error").write_text("test")

    def fail_io(self) -> None:
        """Make every later read and write fail with an I/O error."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def repair(self) -> None:
        """Check and repair the unmounted file system."""
        # Exit status 1: errors were found and corrected.
        assert subprocess.run(["e2fsck", "-f", "-y", str(self._image)], capture_output=True).returncode in (0, 1)

    def lose_blocks_of(self, path: Path) -> Path:
        """Remove the blocks of a file from the image, keeping its metadata, and return a copy of the image.

        Works only while the content is not cached; a write turns the lost blocks into zeros.
        """
        relative = "/" + path.relative_to(self.mount_point).as_posix()
        for other in self.mount_point.rglob("*"):
            other.stat()
        blocks = [int(block) for block in _run("debugfs", "-R", f"blocks {relative}", str(self._image)).split()]
        copy = self._image.with_suffix(".copy")
        shutil.copy(self._image, copy)
        with self._image.open("r+b") as file:
            file.truncate(min(blocks) * 1024 // mmap.PAGESIZE * mmap.PAGESIZE)  # the rest of a page reads as zeros
        return copy

    def restore(self, copy: Path) -> None:
        """Restore a copy of the image of the unmounted file system."""
        shutil.copy(copy, self._image)

    def close(self) -> None:
        """Unmount the file system."""
        self.unmount()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
