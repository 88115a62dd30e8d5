"""Small real file systems for a test, where this process may mount: as root, on Linux.

They are mounted in a namespace of this process's own, so nobody else sees them and none can be left
behind. What cannot be had makes the test skip, and says why.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEM = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS
_SHUT_DOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_FLUSH = 2  # the journal is not written either

_is_private = False


def _be_private() -> None:
    """Give this process's main thread, and all that it starts from now on, mounts of its own."""
    global _is_private
    if _is_private:
        return
    if sys.platform != "linux":
        pytest.skip("Windows mounts nothing for a test")
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACE):
        pytest.skip(f"no mount namespace to be had here ({os.strerror(ctypes.get_errno())})")
    run("mount", "--make-rprivate", "/")
    _is_private = True


def run(*command: object) -> str:
    """A program's output; a test that needs it skips where it fails."""
    path = shutil.which(str(command[0]), path=SYSTEM)
    if not path:
        pytest.skip(f"there is no {command[0]} here")
    done = subprocess.run([path, *map(str, command[1:])], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} does not work here: {done.stderr.strip()}")
    return done.stdout.strip()


class Mount:
    """A file system in a folder."""

    def __init__(self, place: Path, device: Path | str, kind: str, options: str) -> None:
        self.place = place
        self._device, self._kind, self._options = device, kind, options
        self.on()

    def on(self, options: str = "") -> None:
        """Mount it, also again."""
        every = ",".join(filter(None, (self._options, options)))
        if self._kind == "exfat-fuse":
            run("mount.exfat-fuse", self._device, self.place)
        else:
            run("mount", "-t", self._kind, "-o", every or "rw", self._device, self.place)

    def remount(self, options: str) -> None:
        run("mount", "-o", f"remount,{options}", self.place)

    def off(self) -> None:
        """Take it away, whoever uses it."""
        subprocess.run([shutil.which("umount", path=SYSTEM) or "umount", "-l", self.place], check=True)

    def shut_down(self) -> None:
        """As if it was unplugged: now everything fails, and nothing more reaches the disk. ext4 only."""
        import fcntl

        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUT_DOWN, _NO_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(fd)


class Silent:
    """A drive that does not answer, as a network's that went away: whoever asks it waits till it is `off`."""

    def __init__(self, place: Path) -> None:
        _be_private()
        self.place = place
        try:
            self._server = os.open("/dev/fuse", os.O_RDWR)  # and nobody serves
        except OSError as error:
            pytest.skip(f"no file system of one's own to be had here ({error.strerror})")
        options = f"fd={self._server},rootmode=40000,user_id=0,group_id=0"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"silent", os.fsencode(place), b"fuse", 0, options.encode()):
            os.close(self._server)
            pytest.skip(f"no drive that is silent to be had here ({os.strerror(ctypes.get_errno())})")

    @property
    def is_on(self) -> bool:
        return self._server >= 0

    def off(self) -> None:
        """It is gone: whoever waits for it hears so."""
        os.close(self._server)
        self._server = -1
        subprocess.run([shutil.which("umount", path=SYSTEM) or "umount", "-l", self.place], check=True)


class Mounter:
    """Mounts what a test asks for, and unmounts it at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounts: list[Mount] = []
        self._loops: list[str] = []
        _be_private()

    def tmpfs(self, size: int, more: str = "") -> Mount:
        return self._mount("none", "tmpfs", ",".join(filter(None, (f"size={size}", more))))

    def ext4(self, size: int, *features: str, options: str = "") -> Mount:
        image = self._image(size)
        run("mkfs.ext4", "-q", "-F", "-m", "0", *features, image)
        return self._mount(self._loop(image), "ext4", options)

    def btrfs(self, limit: int) -> Mount:
        """With a quota of so many bytes, which binds root too."""
        image = self._image(128 << 20)
        run("mkfs.btrfs", "-q", "--mixed", image)
        mount = self._mount(self._loop(image), "btrfs", "")
        run("btrfs", "quota", "enable", mount.place)
        self.limit(mount, limit)
        return mount

    def limit(self, mount: Mount, limit: int) -> None:
        """Change the quota."""
        run("btrfs", "qgroup", "limit", limit, mount.place)

    def fat(self, size: int) -> Mount:
        """Without hard links, names without case, no colons: the kernel's vfat, or else exFAT by FUSE."""
        image = self._image(size)
        if "\tvfat\n" in Path("/proc/filesystems").read_text():
            run("mkfs.vfat", image)
            return self._mount(self._loop(image), "vfat", "utf8")
        run("mkfs.exfat", image)
        return self._mount(self._loop(image), "exfat-fuse", "")

    def _image(self, size: int) -> Path:
        image = self._folder / f"image-{len(self._loops)}"
        with image.open("wb") as file:
            file.truncate(size)
        return image

    def _loop(self, image: Path) -> str:
        self._loops.append(run("losetup", "-f", "--show", image))
        return self._loops[-1]

    def _mount(self, device: str, kind: str, options: str) -> Mount:
        place = self._folder / f"disk-{len(self._mounts)}"
        place.mkdir()
        self._mounts.append(Mount(place, device, kind, options))
        return self._mounts[-1]

    def close(self) -> None:
        for mount in self._mounts:
            while os.path.ismount(mount.place):
                mount.off()
        for loop in self._loops:
            subprocess.run([shutil.which("losetup", path=SYSTEM) or "losetup", "-d", loop], check=True)
