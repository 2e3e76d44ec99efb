"""Disks of our own: loop-mounted images that can be copied as a power cut would leave them, and
small file systems that fill up.  Needs root; who cannot have them skips with the reason."""
import os
import shutil
import subprocess
import tempfile

import pytest


def _run(*command):
    return subprocess.run(command, capture_output=True, timeout=60)


def need_mounts(fs="ext4"):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    if shutil.which("mkfs." + fs, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"no mkfs.{fs}")


class Mount:
    """Something mounted on a folder of its own; unmounted at the end whatever happened."""

    def __init__(self, folder, *options):
        os.makedirs(folder, exist_ok=True)
        self.path = str(folder)
        done = _run("mount", *options, self.path)
        if done.returncode != 0:
            pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
        self.mounted = True

    def unmount(self):
        if self.mounted:
            done = _run("umount", self.path)
            if done.returncode != 0:
                _run("umount", "-l", self.path)
            self.mounted = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unmount()


class Image:
    """A file that is a disk.  What reached the device is what the file holds."""

    def __init__(self, fs="ext4", mib=None):
        need_mounts(fs)
        self.fs = fs
        room = "/dev/shm" if _free("/dev/shm") > 2 << 30 else None
        self.folder = tempfile.mkdtemp(prefix="memfs-disk-", dir=room)
        self.path = os.path.join(self.folder, "disk")
        with open(self.path, "wb") as f:
            f.truncate((mib or (320 if fs == "xfs" else 256)) << 20)
        done = _run("mkfs." + fs, "-q", self.path)
        if done.returncode != 0:
            self.remove()
            pytest.skip(f"mkfs.{fs}: {done.stderr.decode().strip()}")

    def mount(self, folder):
        # the journal is committed by fsync only, not by the clock
        options = "loop,commit=300" if self.fs == "ext4" else "loop,nouuid"
        return Mount(folder, "-o", options, self.path)

    def cut(self, name):
        """The disk as it is at this instant, as another image."""
        other = Image.__new__(Image)
        other.fs, other.folder = self.fs, self.folder
        other.path = os.path.join(self.folder, name)
        done = _run("cp", "--sparse=always", self.path, other.path)
        assert done.returncode == 0, done.stderr
        return other

    def drop(self):
        os.unlink(self.path)

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def _free(path):
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def tmpfs(folder, kib):
    need_mounts()
    return Mount(folder, "-t", "tmpfs", "-o", f"size={kib}k,mode=0755", "memfs-test")


def fill(ballast, leave_kib):
    """Takes the disk up to so much room."""
    stat = os.statvfs(os.path.dirname(ballast))
    size = max(0, stat.f_bavail * stat.f_frsize - leave_kib * 1024)
    with open(ballast, "wb") as f:
        try:
            os.posix_fallocate(f.fileno(), 0, max(size, 1))
        except OSError:
            pass
