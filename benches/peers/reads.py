"""Reads that the page cache answers: what a mount costs where no request reaches its daemon.

The kernel keeps a cached file in *folios* of one or many pages, and a read pays for each of them; which size it is
is the file system's choice. So beside the mount and the plain directory stands the same file in caches whose folios are known:

    plain          the directory beside the mount, as its file system fills the cache
    plain_single   the same directory, read page by page, so that each folio is one page
    memory_single  tmpfs, huge=never: one page a folio; memory_large: huge=always
    mount          through the mount

Never measures with a cold cache: each file is read once before.
"""

import ctypes
import mmap
import os
import struct
import subprocess

from hosts import Failed, run

BYTES = 128 << 20
BLOCK = 8192
COUNT = BYTES // BLOCK
PAGE = 4096
# In /proc/kpageflags: not the first page of its folio.
TAIL = 1 << 16
TIMES = 5


class Reads:
    """The files that are compared, each with the same content."""

    def __init__(self, hosts, mounted, plain):
        self.hosts = hosts
        memory = {}
        for huge in ("never", "always"):
            memory[huge] = hosts.make_dir(f"memory-{huge}")
            run(["mount", "-t", "tmpfs", "-o", f"huge={huge}", "none", memory[huge]])
            hosts.mounts.append(memory[huge])
        self.files = {"plain": f"{plain}/read", "plain_single": f"{plain}/read-single", "mount": f"{mounted}/read",
                      "memory_single": f"{memory['never']}/read", "memory_large": f"{memory['always']}/read"}
        content = os.urandom(BYTES)
        for name, at in self.files.items():
            with open(at, "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
            fill(at, name == "plain_single")

    def measure(self, keep):
        """One round: each file in turn. `keep` takes a name and ns."""
        for name, at in self.files.items():
            keep(f"read_{name}", read_ns(self.hosts, at))

    def folios(self):
        """By file: mean pages of a folio, and the part of the pages that lie in memory where the one before them ends. Asked for
        after the measurement, of what was measured."""
        found = {}
        for name, at in self.files.items():
            found[f"folio_{name}"], found[f"adjacent_{name}"] = layout(at)
        return found


def fill(at, single):
    """Fills the cache anew from the file: as the kernel likes to, or each page by a read of its own."""
    file = os.open(at, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        if single:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        step = PAGE if single else 1 << 20
        for offset in range(0, BYTES, step):
            os.pread(file, step, offset)
    finally:
        os.close(file)


def read_ns(hosts, at):
    """Processor time of one read of 8 KiB, the least of several passes over the file; what dd needs besides is taken off.

    No clock on the wall: nothing here waits for anything but a processor, and others want it too.
    """
    return min(cpu_s(hosts, at, COUNT) - cpu_s(hosts, at, 0) for _ in range(TIMES)) / COUNT * 1e9


def cpu_s(hosts, at, count):
    dd = subprocess.Popen(["dd", f"if={at}", "of=/dev/null", f"bs={BLOCK}", f"count={count}"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=hosts.group("clients").enter)
    said = dd.stderr.read().decode()
    _, status, used = os.wait4(dd.pid, 0)
    dd.returncode = os.waitstatus_to_exitcode(status)
    if dd.returncode or f"{count}+0 records in" not in said:
        raise Failed(f"dd has not read {at}:\n{said}")
    return used.ru_utime + used.ru_stime


def layout(at):
    """Mean pages of a folio of the cached file, and which part of them is adjacent in memory; none where the kernel does not show it."""
    count = BYTES // PAGE
    with open(at, "rb") as file, mmap.mmap(file.fileno(), BYTES, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        # Only a read maps a page of the cache itself.
        for offset in range(0, BYTES, PAGE):
            mapped[offset]
        view = ctypes.c_char.from_buffer(mapped)
        begin = ctypes.addressof(view)
        del view
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as pagemap, open("/proc/kpageflags", "rb", buffering=0) as kinds:
                pagemap.seek(begin // PAGE * 8)
                entries = struct.unpack(f"{count}Q", pagemap.read(count * 8))
                frames = [it & (1 << 55) - 1 for it in entries if it >> 63]
                folios = sum(not struct.unpack("Q", os.pread(kinds.fileno(), 8, it * 8))[0] & TAIL for it in frames)
        except FileNotFoundError:
            return None, None
    if not folios:
        return None, None
    adjacent = sum(one + 1 == two for one, two in zip(frames, frames[1:]))
    return round(len(frames) / folios, 1), round(adjacent / len(frames), 2)
