"""PostgreSQL on a GlusterFS volume with two replicas: nearest in shape to Duolog, a file system in user space.

Each node has its own glusterd, in mount and network namespaces of its own, since their paths are built in.
"""

import re
import subprocess

from hosts import ADDRESS, Failed, run, wait_until
from postgresql import Peer, Server

OWN = ("/var/lib/glusterd", "/var/log/glusterfs")

# GlusterFS's own choice for databases (its group `db-workload`); with its defaults PostgreSQL sees files that
# are shorter than what it has written, and stops.
DATABASE = {
    "performance.open-behind": "on", "performance.write-behind": "off", "performance.stat-prefetch": "off",
    "performance.quick-read": "off", "performance.strict-o-direct": "on", "performance.read-ahead": "off",
    "performance.io-cache": "off", "performance.readdir-ahead": "off", "performance.client-io-threads": "on",
    "server.event-threads": "4", "client.event-threads": "4", "performance.read-after-open": "yes",
}


class OnGlusterfs(Peer):
    """On the mount of a volume of replica 2."""

    regimes = ("steady",)

    def make(self, template):
        self.nodes = {}
        for node in "ab":
            script = "set -e\nmount --make-rprivate /\nmount -t tmpfs none /run\nmkdir /run/gluster\n"
            for number, at in enumerate(OWN):
                own = self.hosts.make_dir(f"{self.name}-{node}-{number}")
                script += f"mkdir -p {at}; mount --bind {own} {at}\n"
            script += "exec glusterd -N -l /var/log/glusterfs/glusterd.log\n"
            self.nodes[node] = self.hosts.start(self.group, node, ["unshare", "-m", "--", "sh", "-c", script])
        for node in "ab":
            wait_until(f"glusterd on node {node}", lambda: self._gluster(node, "peer", "status", fails=False), 60)
        self._gluster("a", "peer", "probe", ADDRESS["b"])
        wait_until("GlusterFS: the other node", lambda: "Connected" in self._gluster("a", "peer", "status", fails=False), 60)
        bricks = [f"{ADDRESS[node]}:{self.hosts.make_dir(node, f'{self.name}-brick')}" for node in "ab"]
        self._gluster("a", "volume", "create", "peers", "replica", "2", *bricks, "force")
        for key, value in (*DATABASE.items(), ("cluster.quorum-type", "none")):
            self._gluster("a", "volume", "set", "peers", key, value)
        wait_until("GlusterFS: the volume", lambda: self._gluster("a", "volume", "start", "peers", fails=False) or "Started" in
                   self._gluster("a", "volume", "info", "peers", fails=False), 60)
        self.at = self.hosts.make_dir(f"{self.name}-mount")
        # Seen by this process and the server too, so it is mounted here, with the network of node a.
        self.hosts.run(self.group, "a", ["glusterfs", f"--volfile-server={ADDRESS['a']}", "--volfile-id=peers",
                                         f"--log-file={self.hosts.path('glusterfs.log')}", self.at])
        self.hosts.mounts.append(self.at)
        wait_until("GlusterFS: the mount", lambda: subprocess.run(["mountpoint", "-q", self.at]).returncode == 0, 30)
        data = f"{self.at}/data"
        wait_until("GlusterFS: a directory", lambda: subprocess.run(
            ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", data], stderr=subprocess.DEVNULL).returncode == 0, 30)
        self.copy(template, data)
        self.server = Server(self.hosts, self.group, "a", data)
        self.server.start()

    def _gluster(self, node, *args, fails=True):
        command = ["nsenter", "-t", self.nodes[node].pid, "-m", "-n", "--", "gluster", "--mode=script", *args]
        try:
            return run(command, 60)
        except Failed:
            self.hosts.assert_runs(self.nodes[node], f"glusterd on node {node}")
            if fails:
                raise
            return ""

    def check(self):
        super().check()
        state = self._gluster("a", "volume", "status", "peers")
        # A long name is wrapped.
        online = re.findall(r"^Brick .*?\s([YN])\s+(?:\d+|N/A)\s*$", state, re.M | re.S).count("Y")
        if online != 2:
            raise Failed(f"{self.name}: {online} of 2 bricks are online:\n{state}")
        if "Number of Bricks: 1 x 2 = 2" not in self._gluster("a", "volume", "info", "peers"):
            raise Failed(f"{self.name}: the volume has no two replicas")
