"""The floor of a commit, each part of it alone, and how near the mount comes; reads that hit the cache.

The floor of a durable write on two nodes is FUSE + max(local sync, round trip + remote sync).
"""

import json
import os
import statistics
import time

from duolog import Pair
from hosts import AT_ONCE, read, wait_until
from reads import Reads


def measure(this):
    """Everything of `floor`, in turns."""
    if not this.wants("floor") or any(it["kind"] == "floor" for it in this.found):
        return
    hosts, options = this.hosts, this.options
    print("floor", flush=True)
    pair = Pair(hosts, "floor", [("data", "none")])
    pair.make("root")
    pair.start_both()
    mounted = pair.directory("data")
    plain = {node: hosts.make_dir(node, "floor-plain") for node in "ab"}
    fuse = Fuse(hosts)
    reads = Reads(hosts, mounted, plain["a"])
    figures = {}

    def keep(name, value):
        figures.setdefault(name, []).append(value)
    for _ in range(max(3, options.rounds)):
        keep("fdatasync_a", synced(hosts, plain["a"], ["--data-only"]))
        keep("fdatasync_b", synced(hosts, plain["b"], ["--data-only"]))
        keep("quic", linked(hosts))
        keep("fuse", fuse.write_and_sync())
        keep("fsync_plain", synced(hosts, plain["a"], []))
        keep("fsync_mount", synced(hosts, mounted, []))
        keep("reopen_plain", synced(hosts, plain["a"], ["--reopen"]))
        keep("reopen_mount", synced(hosts, mounted, ["--reopen"]))
        reads.measure(keep)
    folios = reads.folios()
    pair.check()
    pair.stop()
    hosts.end_group("floor")
    found = {name: statistics.median(values) for name, values in figures.items()}
    # The link's bench goes over loopback: a longer way comes on top of it.
    distance = this.found[0]["round_trip_us"] if options.rtt_ms else 0
    floor = found["fuse"] + max(found["fdatasync_a"], found["quic"] + distance + found["fdatasync_b"])
    this.keep(kind="floor", floor_us=round(floor, 1), ratio=round(found["fsync_mount"] / floor, 3),
              read_ratio=round(found["read_plain"] / found["read_mount"], 3),
              read_ratio_single=round(found["read_plain_single"] / found["read_mount"], 3), **folios,
              distance_us=distance, **{name + ("_ns" if "read" in name else "_us"): round(value, 1)
                                       for name, value in found.items()})
    print("  " + json.dumps(this.found[-1]), flush=True)


def synced(hosts, at, options):
    """p50 in us of 8 KiB written and synced, by one thread."""
    said = hosts.run("clients", "a", [
        hosts.tools["duolog"], "bench", "mount", "--dir", at, "--seconds", 2, "--json", *options])
    return json.loads(said)["p50_us"]


def linked(hosts):
    """p50 in us of 8 KiB over QUIC on loopback and acknowledged, no disk."""
    said = hosts.run("clients", "a", [
        hosts.tools["duolog"], "bench", "link", "--seconds", 2, "--mtu-bytes", 6500 if hosts.mtu >= 6600 else 1452, "--json"])
    return json.loads(said)["p50_us"]


class Fuse:
    """A file system in user space over memory: what its two requests take, and nothing else."""

    def __init__(self, hosts):
        self.at = hosts.make_dir("fuse")
        image = f"/dev/shm/{os.path.basename(hosts.dir)}"
        with open(image, "wb") as file:
            file.truncate(16 << 20)
        server = hosts.start("machine", None, [*AT_ONCE, hosts.tools["slow-disk"], "--flush-us", 0, image, self.at])

        def ready():
            hosts.assert_runs(server, "slow-disk")
            return "ready" in read(server.said)
        wait_until("slow-disk", ready, 20)
        hosts.mounts.append(self.at)
        os.unlink(image)

    def write_and_sync(self):
        """p50 in us."""
        file, block, taken = os.open(f"{self.at}/disk", os.O_RDWR), bytes(8192), []
        try:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                began = time.perf_counter()
                os.pwrite(file, block, len(taken) % 1000 * 8192)
                os.fsync(file)
                taken.append(time.perf_counter() - began)
        finally:
            os.close(file)
        return statistics.median(taken) * 1e6
