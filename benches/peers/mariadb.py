"""MariaDB: the servers that are compared, and sysbench against them.

All begin with copies of one directory with sysbench's tables, and sync each commit. The unreplicated server
and those on Duolog have no binary log, which they need for nothing; the replicated one needs it.
"""

import os
import re
import signal
import subprocess
import time

from duolog import Pair
from hosts import ADDRESS, Failed, read, run, tail, wait_until

TABLES, ROWS = 4, 50000
# Dirty pages that the purge of what is old makes in between.
CLEAN_PAGES = 20
SETTINGS = [
    "--skip-name-resolve", "--innodb-flush-method=O_DIRECT", "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M",
    "--innodb-log-file-size=1G", "--performance-schema=OFF", "--max-connections=200", "--innodb-io-capacity=1000",
]


def make_template(hosts):
    """The directory that all servers begin with, cleanly shut down."""
    at = hosts.make_dir("template-mariadb", owner="mysql")
    hosts.run("clients", None, [
        "mariadb-install-db", "--no-defaults", f"--datadir={at}", "--auth-root-authentication-method=normal",
        "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=1G"], "mysql")
    server = Server(hosts, "clients", "a", at, ["--innodb-flush-log-at-trx-commit=0"])
    server.start()
    server.sql("create database sbtest; create user 'repl'@'%' identified by ''; grant replication slave on *.* to 'repl'@'%'")
    hosts.run("clients", "a", server.sysbench("prepare", 1, 0), limit_s=600)
    server.sql("set global innodb_fast_shutdown = 0")
    server.stop()
    return at


class Server:
    """One server on a data directory."""

    def __init__(self, hosts, group, node, data, settings=(), name=None):
        self.hosts, self.group, self.node, self.data = hosts, group, node, data
        self.settings = [*SETTINGS, *settings]
        own = hosts.make_dir("sockets", f"{name or group}-{node}-mariadb", owner="mysql")
        self.socket, self.own, self.process = f"{own}/s", own, None

    def start(self):
        network = [] if any("bind-address" in it for it in self.settings) else ["--skip-networking"]
        self.process = self.hosts.start(self.group, self.node, [
            "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.data}", f"--socket={self.socket}",
            f"--pid-file={self.own}/pid", f"--tmpdir={self.own}", *network, *self.settings], "mysql")

        def ready():
            self.hosts.assert_runs(self.process, f"{self.group}: MariaDB")
            return subprocess.run(["mariadb", "--no-defaults", "-u", "root", "-S", self.socket, "-e", "select 1"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        wait_until(f"{self.group}: MariaDB on node {self.node}", ready, 180)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.group}: MariaDB does not stop:\n{tail(self.process.said)}") from None

    def sql(self, statement):
        return self.hosts.run("clients", None, [
            "mariadb", "--no-defaults", "-u", "root", "-S", self.socket, "-N", "-B", "-e", statement]).strip()

    def status(self, name):
        rows = self.sql(f"show global status like '{name}'")
        return rows.split("\t")[1] if rows else ""

    def setting(self, name):
        return self.sql(f"select @@global.{name}")

    def clean(self):
        """Writes every page that is not written yet, as an idle server does by and by."""
        usual = self.setting("innodb_max_dirty_pages_pct")
        self.sql("set global innodb_max_dirty_pages_pct = 0")
        wait_until(f"{self.group}: no dirty pages on node {self.node}",
                   lambda: int(self.status("Innodb_buffer_pool_pages_dirty")) <= CLEAN_PAGES, 60)
        self.sql(f"set global innodb_max_dirty_pages_pct = {usual}")

    def sysbench(self, what, clients, seconds):
        return ["sysbench", "oltp_write_only", f"--mysql-socket={self.socket}", "--mysql-user=root", "--db-driver=mysql",
                f"--tables={TABLES}", f"--table-size={ROWS}", f"--threads={clients}", f"--time={seconds}", "--events=0",
                "--rand-type=uniform", "--histogram=on", "--db-ps-mode=auto", what]


class Peer:
    """One of what is compared."""

    works, regimes, checkpoint_works = ("oltp",), ("steady",), ()

    def __init__(self, hosts, name):
        self.hosts, self.name, self.group, self.server = hosts, name, name, None

    def select(self, regime):
        """It is measured as it is."""

    def settle(self, regime):
        """After its turn: has it do what it left to be done, which would be done in the next one's turn else."""
        self.server.clean()

    def touch_all(self):
        """Fills the buffer pool, and writes most pages once."""
        self.hosts.run("clients", "a", self.server.sysbench("run", 8, 3))

    def check(self):
        if self.server.setting("innodb_flush_log_at_trx_commit") != "1":
            raise Failed(f"{self.name}: innodb_flush_log_at_trx_commit is not 1")

    def counters(self):
        redo = int(self.server.status("Innodb_os_log_written") or self.server.status("Innodb_lsn_current"))
        binlog = int(self.server.status("Binlog_bytes_written") or 0)
        return {"wal": redo + binlog, "wire": self.hosts.link_bytes(), "cpu": self.hosts.group(self.group).cpu_s()}

    def warm_up(self, work, clients, seconds):
        self.hosts.run("clients", "a", self.server.sysbench("run", clients, seconds))

    def measure(self, work, clients, seconds, at=()):
        """Latencies are those of sysbench's histogram, whose steps are below 2 %."""
        before, began = self.counters(), time.time()
        said = self.hosts.run("clients", "a", self.server.sysbench("run", clients, seconds), limit_s=seconds + 120)
        moments = [(0.0, before), (time.time() - began, self.counters())]
        # value -- latency range | **** count
        histogram = re.findall(r"^\s*([0-9.]+) \|\**\s+([0-9]+)$", said, re.M)
        total = re.search(r"total time:\s+([0-9.]+)s", said)
        if not histogram or not total:
            raise Failed(f"{self.name}: sysbench says nothing that can be read:\n{said[-2000:]}")
        seconds, found = float(total.group(1)), []
        for value, count in histogram:
            found += [float(value) / 1000] * int(count)
        # When each of them ended is not known: only the whole counts.
        return [(seconds * (number + 1) / len(found), latency) for number, latency in enumerate(found)], moments

    def stop(self):
        if self.server and self.server.process and self.server.process.poll() is None:
            self.server.stop()


class Alone(Peer):
    """No second copy and no binary log."""

    def make(self, template):
        data = self.hosts.make_dir("a", self.name, owner="mysql")
        self.hosts.run("clients", None, ["cp", "-a", f"{template}/.", data])
        self.server = Server(self.hosts, self.group, "a", data)
        self.server.start()


class SemiSynchronous(Peer):
    """A commit waits until the replica has it in its relay log, and that on its disk: durable on both."""

    replica = None

    def make(self, template):
        for node in "ab":
            data = self.hosts.make_dir(node, self.name, owner="mysql")
            self.hosts.run("clients", None, ["cp", "-a", f"{template}/.", data])
        self.server = Server(self.hosts, self.group, "a", self.hosts.path("a", self.name), [
            "--server-id=1", "--log-bin=binlog", "--sync-binlog=1", f"--bind-address={ADDRESS['a']}", "--binlog-format=ROW",
            "--rpl-semi-sync-master-enabled=ON", "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            "--rpl-semi-sync-master-timeout=600000"])
        self.server.start()
        self.replica = Server(self.hosts, self.group, "b", self.hosts.path("b", self.name), [
            "--server-id=2", "--relay-log=relay", "--sync-relay-log=1", "--rpl-semi-sync-slave-enabled=ON",
            f"--bind-address={ADDRESS['b']}", "--slave-parallel-threads=2", "--slave-parallel-mode=optimistic",
            "--skip-slave-start=ON", "--relay-log-purge=ON"])
        self.replica.start()
        file, position = self.server.sql("show master status").split("\t")[:2]
        self.replica.sql(f"change master to master_host='{ADDRESS['a']}', master_user='repl', master_log_file='{file}', "
                         f"master_log_pos={position}, master_use_gtid=no; start slave")
        wait_until(f"{self.name}: a semi-synchronous replica",
                   lambda: self.server.status("Rpl_semi_sync_master_clients") == "1", 60)
        self._see_syncs()

    def _see_syncs(self):
        """The replica really syncs its relay log for each transaction: seen in its system calls."""
        traced = self.hosts.path("relay.strace")
        # The server is the process that `nsenter` and `setpriv` became.
        strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-y", "-e", "trace=fdatasync,fsync", "-o", traced, "-p", str(self.replica.process.pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            before = int(self.server.status("Rpl_semi_sync_master_yes_tx"))
            self.hosts.run("clients", "a", self.server.sysbench("run", 1, 2))
            transactions = int(self.server.status("Rpl_semi_sync_master_yes_tx")) - before
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(20)
        syncs = len(re.findall(r"sync\(\d+<[^>]*/relay\.\d+>", read(traced)))
        if transactions == 0 or syncs < transactions * 0.9:
            raise Failed(f"{self.name}: {syncs} syncs of the relay log for {transactions} transactions, which must be one each")
        # `sync_relay_log = 1` syncs after each event of a transaction; with more than 1 it acknowledges what is not synced.
        print(f"  {self.name}: {syncs / transactions:.1f} syncs of the relay log for a transaction", flush=True)

    def check(self):
        super().check()
        wanted = {"sync_binlog": (self.server, "1"), "rpl_semi_sync_master_wait_point": (self.server, "AFTER_SYNC"),
                  "sync_relay_log": (self.replica, "1")}
        for name, (server, value) in wanted.items():
            if server.setting(name) != value:
                raise Failed(f"{self.name}: {name} is not {value}")
        if self.server.status("Rpl_semi_sync_master_status") != "ON" or self.server.status("Rpl_semi_sync_master_no_tx") != "0":
            raise Failed(f"{self.name}: commits did not wait for the replica")

    def settle(self, regime):
        def applied():
            return self.server.setting("gtid_binlog_pos") == self.replica.setting("gtid_slave_pos")
        super().settle(regime)
        wait_until(f"{self.name}: all applied by the replica", applied, 60)
        self.replica.clean()

    def stop(self):
        super().stop()
        if self.replica and self.replica.process and self.replica.process.poll() is None:
            self.replica.stop()


class SharedPair:
    """One pair of Duolog nodes for both servers on it, each with a directory of its own."""

    def __init__(self, hosts):
        self.hosts, self.pair = hosts, None

    def get(self):
        if not self.pair:
            self.pair = Pair(self.hosts, "mariadb-duolog", [("one", "mariadb"), ("two", "mariadb")])
            self.pair.make("mysql")
            self.pair.start_both()
        return self.pair

    def stop(self):
        if self.pair:
            self.pair.stop()


class OnDuolog(Peer):
    """On a pair of Duolog nodes: a commit is on the disks of both."""

    def __init__(self, hosts, name, shared, doublewrite):
        super().__init__(hosts, name)
        # Both servers are in the pair's group; the one that is not measured does nothing.
        self.shared, self.doublewrite, self.group = shared, doublewrite, "mariadb-duolog"

    def make(self, template):
        self.pair = self.shared.get()
        data = self.pair.directory("one" if self.doublewrite else "two")
        self.hosts.run("clients", None, ["cp", "-a", f"{template}/.", data])
        os.chmod(data, 0o700)
        self.server = Server(self.hosts, self.group, "a", data,
                             [f"--innodb-doublewrite={'ON' if self.doublewrite else 'OFF'}"], self.name)
        self.server.start()

    def check(self):
        super().check()
        if (self.server.setting("innodb_doublewrite") == "1") != self.doublewrite:
            raise Failed(f"{self.name}: innodb_doublewrite is wrong")
        if not any(it.split()[1] == self.server.data for it in open("/proc/self/mounts")):
            raise Failed(f"{self.name}: {self.server.data} is not mounted")
        self.pair.check()

    def counters(self):
        return {**super().counters(), **self.pair.counters()}

    def settle(self, regime):
        super().settle(regime)
        self.pair.settle()


def version():
    return run(["/usr/sbin/mariadbd", "--version"]).strip()
