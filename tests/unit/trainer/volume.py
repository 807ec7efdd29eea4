"""A small real file system: ext4 in a file, mounted through a loop device. Needs root."""

import fcntl
import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_WRITING = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Volume:
    """20 MB of ext4; `close` leaves neither mount nor loop device."""

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
        """Mount it with nothing cached."""
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("mount", "-o", options, self._device, str(self.mount_point))
        self._is_mounted = True

    def unmount(self) -> None:
        """Undo `mount`, whole or half."""
        if self._is_mounted:
            _run("umount", str(self.mount_point))
            self._is_mounted = False
        if self._device is not None:
            _run("losetup", "--detach", self._device)
            self._device = None

    def fill(self) -> Path:
        """Take all the room that is left; the file that takes it."""
        ballast = self.mount_point / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                return ballast

    def fail(self) -> None:
        """Let the kernel find an error in the file system: it makes it read-only under whoever uses it."""
        assert self._device is not None
        Path("/sys/fs/ext4", Path(self._device).name, "trigger_fs_error").write_text("test")

    def die(self) -> None:
        """Let every later read and write of a file fail with an I/O error."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_WRITING))
        finally:
            os.close(descriptor)

    def repair(self) -> None:
        """Check the file system; not while it is mounted."""
        # Exit status 1: errors were found and corrected.
        assert subprocess.run(["e2fsck", "-f", "-y", str(self._image)], capture_output=True).returncode in (0, 1)

    def lose_blocks_of(self, path: Path) -> Path:
        """Let the disk lose the content of a file, whose name and size stay known; returns a copy of the disk.

        Only while the content is not in memory, and for what is read next: a write makes the lost blocks zeros.
        """
        relative = "/" + path.relative_to(self.mount_point).as_posix()
        for other in self.mount_point.rglob("*"):
            other.stat()
        blocks = [int(word) for word in _run("debugfs", "-R", f"blocks {relative}", str(self._image)).split()]
        copy = self._image.with_suffix(".copy")
        shutil.copy(self._image, copy)
        with self._image.open("r+b") as file:
            file.truncate(min(blocks) * 1024 // mmap.PAGESIZE * mmap.PAGESIZE)  # the rest of a page reads as zeros
        return copy

    def restore(self, copy: Path) -> None:
        """Bring a copy of the disk back; not while it is mounted."""
        shutil.copy(copy, self._image)

    def close(self) -> None:
        """Leave nothing behind."""
        self.unmount()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
