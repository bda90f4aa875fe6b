"""Two computers on this one machine: their network, their disks, their processes.

    node a  10.92.0.1  dev peers0  -- veth, or `distant-link` with a round trip --  peers0  10.92.0.2  node b

A node is a network namespace and a directory, `DIR/a` or `DIR/b`: on this machine's disk as it is, or on
a disk of its own in memory whose flush takes as long as it is told (`slow-disk`). Every process belongs to a control group, one for
each peer, so that CPU time is counted for all of a peer and nothing else, and so that nothing outlives
the run. Never touches a network, mount or process that it did not make.
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ADDRESS = {"a": "10.92.0.1", "b": "10.92.0.2"}
DEVICE = "peers0"
# How long anything that is started may need until it is there.
LIMIT_S = 120
# Cables and disks wait for no processor.
AT_ONCE = ["chrt", "-r", "10"]


class Failed(Exception):
    """What went wrong, in words for whoever runs this, with what can be done."""


def run(args, limit_s=LIMIT_S, **more):
    """Runs a command to its end and returns what it printed; its error output is in what is raised."""
    try:
        done = subprocess.run(
            [str(it) for it in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=limit_s, text=True, **more)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(map(str, args))}: not done within {limit_s} s") from None
    except FileNotFoundError:
        raise Failed(f"{args[0]} is missing") from None
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-2000:]
        raise Failed(f"{' '.join(map(str, args))}: exit code {done.returncode}\n{said}")
    return done.stdout


def wait_until(what, found, limit_s=LIMIT_S, every_s=0.05):
    """Waits for `found` to return something true, and returns that."""
    until = time.monotonic() + limit_s
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > until:
            raise Failed(f"{what}: not within {limit_s} s")
        time.sleep(every_s)


class Group:
    """A control group: who is in it, and what they have computed."""

    root = None

    def __init__(self, name):
        if Group.root is None:
            Group.root = os.path.join(cgroup2(), f"duolog-peers-{os.getpid()}")
            os.mkdir(Group.root)
        self.path = os.path.join(Group.root, name)
        os.makedirs(self.path, exist_ok=True)

    def enter(self):
        """Takes the calling process in; what it starts belongs to it, too."""
        with open(os.path.join(self.path, "cgroup.procs"), "w") as procs:
            procs.write("0")

    def cpu_s(self):
        """User and system time of all that is or was in it."""
        with open(os.path.join(self.path, "cpu.stat")) as stat:
            return int(dict(line.split() for line in stat)["usage_usec"]) / 1e6

    def pids(self):
        with open(os.path.join(self.path, "cgroup.procs")) as procs:
            return [int(line) for line in procs]

    def end(self):
        """Kills whoever is left in it."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        for _ in range(40):
            try:
                return os.rmdir(self.path)
            except FileNotFoundError:
                return None
            except OSError:
                time.sleep(0.05)
        print(f"benches/peers: processes do not end: {self.pids()}", file=sys.stderr)


def cgroup2():
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, at, kind = line.split()[:3]
            if kind == "cgroup2":
                return at
    raise Failed("no control groups (cgroup2) are mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


class Hosts:
    """Both nodes. To be used as a context: what was made is gone after it, whatever happened."""

    def __init__(self, place, tools, flush_ms=None, rtt_ms=0, mtu=9000, compression="adaptive", disk_gib=8):
        self.tools, self.flush_ms, self.rtt_ms, self.mtu, self.disk_gib = tools, flush_ms, rtt_ms, mtu, disk_gib
        # Of every pair of Duolog nodes.
        self.compression = compression
        remove_left_over()
        for name in os.listdir(place):
            found = re.match(r"duolog-peers-(\d+)\.", name)
            if found and not os.path.exists(f"/proc/{found.group(1)}"):
                shutil.rmtree(os.path.join(place, name), ignore_errors=True)
        self.dir = tempfile.mkdtemp(prefix=f"duolog-peers-{os.getpid()}.", dir=place)
        os.chmod(self.dir, 0o755)
        self.spaces = {node: f"duolog-peers-{os.getpid()}-{node}" for node in "ab"}
        self.groups, self.processes, self.mounts, self.loops = {}, [], [], []

    def __enter__(self):
        try:
            self._make_network()
            for node in "ab":
                self._make_disk(node)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for group in [it for name, it in self.groups.items() if name != "machine"]:
            group.end()
        for at in reversed(self.mounts):
            subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)
        # What peers mounted below the nodes' directories.
        for at in mounts_below(self.dir):
            subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop], stderr=subprocess.DEVNULL)
        if "machine" in self.groups:
            self.groups["machine"].end()
        for at in mounts_below(self.dir):
            subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                print(f"benches/peers: process {process.pid} does not end", file=sys.stderr)
        if Group.root:
            try:
                os.rmdir(Group.root)
            except OSError:
                pass
        if mounts_below(self.dir):
            print(f"benches/peers: still mounted, left: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def make_dir(self, *parts, owner=None):
        at = self.path(*parts)
        os.makedirs(at, mode=0o755, exist_ok=True)
        if owner:
            os.chmod(at, 0o700)
            shutil.chown(at, owner, owner)
        return at

    def group(self, name):
        if name not in self.groups:
            self.groups[name] = Group(name)
        return self.groups[name]

    def end_group(self, name):
        """Ends whoever is left in a group, which may be made anew then."""
        if name in self.groups:
            self.groups.pop(name).end()

    def free(self, name):
        """Makes room on disks in memory: whoever had this directory on both nodes has ended."""
        if self.flush_ms is None:
            return
        for own in [self.path(node, it) for node in "ab" for it in (name, f"{name}-brick")]:
            for at in mounts_below(own):
                subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)
            shutil.rmtree(own, ignore_errors=True)

    def command(self, node, args, user=None):
        """What runs `args` on a node, or where this runs, as a user."""
        args = [str(it) for it in args]
        if user:
            args = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *args]
        if node:
            args = ["nsenter", f"--net=/run/netns/{self.spaces[node]}", "--", *args]
        return args

    def start(self, name, node, args, user=None, said=None, **more):
        """Starts what goes on until it is stopped; `name` is the group that it belongs to."""
        group = self.group(name)
        said = said or self.path(f"{name}-{node}-{len(self.processes)}.said")
        with open(said, "w") as out:
            process = subprocess.Popen(
                self.command(node, args, user), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=group.enter, start_new_session=True, **more)
        process.said = said
        self.processes.append(process)
        return process

    def run(self, name, node, args, user=None, limit_s=LIMIT_S):
        """Runs a command on a node to its end; its CPU time goes to the group `name`."""
        return run(self.command(node, args, user), limit_s, preexec_fn=self.group(name).enter)

    def assert_runs(self, process, what):
        if process.poll() is not None:
            raise Failed(f"{what} ended with exit code {process.returncode}:\n{tail(process.said)}")

    def link_bytes(self):
        """Bytes that went over the link since it was made, both directions, with all headers."""
        at = f"/proc/{self._holder()}/net/dev"
        with open(at) as table:
            for line in table:
                if line.strip().startswith(DEVICE + ":"):
                    fields = line.split(":")[1].split()
                    return int(fields[0]) + int(fields[8])
        raise Failed(f"{at} has no {DEVICE}")

    def _holder(self):
        return self.holder.pid

    def round_trip_us(self):
        """The median round trip of small packets between the nodes."""
        said = run(self.command("a", ["ping", "-c", 200, "-i", 0.002, "-s", 64, ADDRESS["b"]]))
        return round(statistics.median(float(it) for it in re.findall(r"time=([0-9.]+) ms", said)) * 1000, 1)

    def _make_network(self):
        for space in self.spaces.values():
            run(["ip", "netns", "add", space])
            run(["ip", "-n", space, "link", "set", "lo", "up"])
        self.holder = self.start("machine", "a", ["sleep", "infinity"])
        if self.rtt_ms:
            link = self.start("machine", None, [
                *AT_ONCE, self.tools["distant-link"], "--device", DEVICE, "--rtt-us", round(self.rtt_ms * 1000),
                *[f"/run/netns/{self.spaces[node]}" for node in "ab"]])

            def ready():
                self.assert_runs(link, "distant-link")
                return "ready" in read(link.said)
            wait_until("the distant link", ready, 20)
        else:
            run(["ip", "-n", self.spaces["a"], "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE,
                 "netns", self.spaces["b"]])
        for node, space in self.spaces.items():
            run(["ip", "-n", space, "address", "add", f"{ADDRESS[node]}/24", "dev", DEVICE])
            run(["ip", "-n", space, "link", "set", "dev", DEVICE, "mtu", self.mtu, "up"])
        wait_until("the network", lambda: subprocess.run(
            self.command("a", ["ping", "-q", "-c", "1", "-W", "1", ADDRESS["b"]]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0, 20)

    def _make_disk(self, node):
        at = self.make_dir(node)
        if self.flush_ms is None:
            return
        # ext4 on a block device in memory whose flush is the fsync of a file in user space: data,
        # journals and O_DSYNC all pay it, whoever asks, and the machine's own disk is not in it.
        below = self.make_dir(f"{node}.disk")
        image = f"/dev/shm/{os.path.basename(self.dir)}.{node}"
        with open(image, "wb") as file:
            file.truncate(self.disk_gib << 30)
        disk = self.start("machine", None, [
            *AT_ONCE, self.tools["slow-disk"], "--flush-us", round(self.flush_ms * 1000), image, below])

        def ready():
            self.assert_runs(disk, "slow-disk")
            return "ready" in read(disk.said)
        wait_until("the slow disk", ready, 20)
        # The disk has it open, and it is gone with that process.
        os.unlink(image)
        self.mounts.append(below)
        loop = run(["losetup", "--find", "--show", f"{below}/disk"]).strip()
        self.loops.append(loop)
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", loop])
        run(["mount", loop, at])
        self.mounts.append(at)


def remove_left_over():
    """Ends what runs left whose own process is gone: those that were killed."""
    def gone(name):
        found = re.match(r"duolog-peers-(\d+)", name)
        return found and not os.path.exists(f"/proc/{found.group(1)}")
    root = cgroup2()
    for name in filter(gone, os.listdir(root)):
        with open(f"{root}/{name}/cgroup.kill", "w") as kill:
            kill.write("1")
        for at in [it.path for it in os.scandir(f"{root}/{name}") if it.is_dir()] + [f"{root}/{name}"]:
            wait_until(f"the end of what {name} left", lambda: removed(at), 20)
    # First: without its mount a device has a name no more. It goes when its file system does.
    for line in run(["losetup", "--noheadings", "-O", "NAME,BACK-FILE"]).splitlines():
        if any(map(gone, line.split("/"))):
            subprocess.run(["losetup", "-d", line.split()[0]], stderr=subprocess.DEVNULL)
    with open("/proc/self/mounts") as mounts:
        found = [line.split()[1] for line in mounts]
    for at in sorted((it for it in found if any(map(gone, it.split("/")))), key=len, reverse=True):
        subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)
    for name in filter(gone, os.listdir("/run/netns") if os.path.isdir("/run/netns") else []):
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def removed(at):
    try:
        os.rmdir(at)
    except OSError:
        return False
    return True


def mounts_below(at):
    """Mount points below a directory, the innermost first."""
    with open("/proc/self/mounts") as mounts:
        found = [line.split()[1] for line in mounts]
    return sorted((it for it in found if it.startswith(at + "/")), key=len, reverse=True)


def read(at):
    try:
        with open(at, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def tail(at, count=2000):
    return read(at)[-count:]
