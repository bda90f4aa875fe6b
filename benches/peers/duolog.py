"""A pair of Duolog nodes, as a site runs it: the pair decides who serves, and says how it stands."""

import json
import re
import time

from hosts import ADDRESS, Failed, run, tail, wait_until


class Pair:
    """Two nodes of one cluster; the directories are mounted on node a."""

    def __init__(self, hosts, name, directories, log="", pair=""):
        """`directories`: pairs of a name and the preset for it. `log`, `pair`: further lines of these tables."""
        self.hosts, self.name, self.binary = hosts, name, hosts.tools["duolog"]
        self.directories, self.processes = directories, {}
        cluster = re.search(r"\b[0-9a-f]{32}\b", run([self.binary, "keygen", "--cluster"])).group()
        key = hosts.path(f"{name}.pair.key")
        run([self.binary, "keygen", "--pair-key", key])
        prints = {}
        for number, node in enumerate("ab", 1):
            home = hosts.make_dir(node, name)
            said = run([self.binary, "keygen", "--out", home, "--name", f"node{number}"])
            prints[node] = re.search(r"sha256:[0-9a-f]{64}", said).group()
        for number, node in enumerate("ab", 1):
            other = "ba"[number - 1]
            home = hosts.path(node, name)
            run(["install", "-m", "600", key, f"{home}/pair.key"])
            tables = "".join(
                f'[[directory]]\npath = "{home}/{it}"\npreset = "{preset}"\n\n' for it, preset in directories)
            with open(self.config(node), "w") as file:
                file.write(f"""[cluster]
id = "{cluster}"

[node]
number = {number}
state_dir = "{home}/state"
control_socket = "{home}/control.sock"
listen = "{ADDRESS[node]}:7433"
certificate = "node{number}.crt"
key = "node{number}.key"
pair_key = "pair.key"

[peer]
address = "{ADDRESS[other]}:7433"
fingerprint = "{prints[other]}"
compression = "{hosts.compression}"
mtu_bytes = {6500 if hosts.mtu >= 6600 else 1452}

[[path]]
local = "{ADDRESS[node]}:7533"
peer = "{ADDRESS[other]}:7533"

[pair]
{pair}
[log]
{log}
{tables}""")

    def config(self, node):
        return self.hosts.path(node, self.name, "duolog.toml")

    def directory(self, name, node="a"):
        return self.hosts.path(node, self.name, name)

    def make(self, owner):
        """Makes empty directories into replicated ones."""
        for node in "ab":
            for name, _ in self.directories:
                self.hosts.make_dir(node, self.name, name, owner=owner)
            run([self.binary, "adopt", "--config", self.config(node)])

    def start(self, node):
        self.processes[node] = self.hosts.start(
            self.name, node, [self.binary, "run", "--config", self.config(node)],
            said=self.hosts.path(f"{self.name}-{node}.said"))

    def start_both(self):
        """Starts both and waits until node a serves with node b up to date."""
        for node in "ab":
            self.start(node)
        self.wait_pair()

    def wait_pair(self, limit_s=120):
        return wait_until(f"{self.name}: PRIM and SECOND", self.is_pair, limit_s)

    def is_pair(self):
        for node, process in self.processes.items():
            self.hosts.assert_runs(process, f"{self.name}: duolog on node {node}")
        first, second = self.status("a"), self.status("b")
        return first and second and (first["state"], second["state"]) == ("PRIM", "SECOND") and first

    def status(self, node="a"):
        try:
            return json.loads(run([
                self.binary, "status", "--socket", self.hosts.path(node, self.name, "control.sock"), "--json"], 10))
        except Failed:
            return None

    def check(self):
        """Fails unless every commit is on both disks now."""
        def answer():
            found = self.status("a"), self.status("b")
            return all(found) and found
        # Beside other work an answer may take longer than a status is waited for.
        try:
            first, second = wait_until("an answer", answer, 20)
        except Failed:
            raise Failed(f"{self.name}: a node does not answer:\n{tail(self.processes['a'].said)}") from None
        log = first["log"]
        if (first["state"], second["state"]) != ("PRIM", "SECOND") or (log["acknowledged"] or 0) < log["committed"]:
            raise Failed(f"{self.name}: not durable on both: {first['state']} ({first['sentence']}), "
                         f"{second['state']} ({second['sentence']}), {log}")

    def settle(self, limit_s=60):
        """Waits until both nodes have in their directories what is committed, so that none of it is left for later."""
        def applied():
            first, second = self.status("a"), self.status("b")
            return first and second and min(it["log"]["applied"] for it in (first, second)) >= first["log"]["committed"]
        wait_until(f"{self.name}: all applied on both nodes", applied, limit_s)

    def counters(self):
        """Log bytes and bytes on the wire since the node started, as the node counts them."""
        status = self.status("a")
        if not status:
            return {"log": None, "node_wire": None}
        return {"log": status["log"]["end"], "node_wire": (status["peer"] or {}).get("wire_bytes", 0)}

    def serving(self):
        """The node that serves now, if one does and its directories are there."""
        for node in "ab":
            status = self.status(node) if node in self.processes else None
            if status and status["state"] in ("PRIM", "ALONE") and all(it["mounted"] for it in status["directories"]):
                return node
        return None

    def is_whole(self):
        """Whether one node serves, whichever, and the other has everything."""
        states = sorted((self.status(node) or {}).get("state") or "" for node in "ab")
        return states == ["PRIM", "SECOND"] and self.serving()

    def stop(self):
        # The one that serves ends last: else the other one would take over.
        serving = self.serving()
        for node in "ab" if serving == "b" else "ba":
            process = self.processes.pop(node, None)
            if process and process.poll() is None:
                process.terminate()
                until = time.monotonic() + 30
                while process.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)


def memory_bytes(hosts, name):
    """Resident memory of each process of a group, by its number."""
    found = {}
    for pid in hosts.group(name).pids():
        try:
            with open(f"/proc/{pid}/status") as status:
                line = next((it for it in status if it.startswith("VmRSS")), None)
            found[pid] = int(line.split()[1]) * 1024 if line else 0
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


