"""PostgreSQL: the servers that are compared, and pgbench against them.

All begin with copies of one directory (pgbench's tables and one for single inserts), have the same settings
but for those that make the difference, and write every page once before anything is measured.
"""

import os
import re
import signal
import subprocess
import time

from duolog import Pair
from hosts import ADDRESS, Failed, read, run, tail, wait_until

PROGRAMS = "/usr/lib/postgresql/15/bin"
SETTINGS = {
    "listen_addresses": "", "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
    "max_connections": "200", "max_wal_senders": "4", "wal_level": "replica", "autovacuum": "off",
    "full_page_writes": "on", "synchronous_commit": "on", "fsync": "on", "wal_sync_method": "fdatasync",
    "logging_collector": "off", "log_checkpoints": "off", "huge_pages": "off", "jit": "off",
}
INSERT = """\\set id random(1, 1000000000)
insert into single (id, filler) values (:id, 'a row of a hundred bytes or so, which is what a small business \
transaction writes at least');
"""
# PostgreSQL's least; the load goes on for two of them, and the second one is measured.
INTERVAL_S = 30
# What is kept of old segments to be written over, as a server has them that has run for a while: enough for the regime steady, and
# less on a slow disk, which is in memory and on which there is less to write.
RECYCLED_MIB = {"usual": 1024, "slow": 512}
# So little that nearly each page that is read comes from the kernel's page cache.
CACHED_BUFFERS = "16MB"


def make_template(hosts, scale):
    """The directory that all servers begin with, cleanly shut down."""
    at = hosts.make_dir("template", owner="postgres")
    hosts.run("clients", None, [f"{PROGRAMS}/initdb", "-D", at, "-A", "trust", "-N", "-k", "-U", "postgres"], "postgres")
    server = Server(hosts, "clients", "a", at, {"fsync": "off", "max_wal_size": "16GB"})
    server.start()
    server.pgbench_init(scale)
    server.sql("create table single (id bigint, filler text)")
    server.sql("vacuum")
    server.stop()
    return at


class Server:
    """One server on a data directory."""

    def __init__(self, hosts, group, node, data, settings=None):
        self.hosts, self.group, self.node, self.data = hosts, group, node, data
        self.recycled_mib = RECYCLED_MIB["usual" if hosts.flush_ms is None else "slow"]
        self.settings = {**SETTINGS, "min_wal_size": f"{self.recycled_mib}MB", **(settings or {})}
        self.sockets = hosts.make_dir("sockets", f"{group}-{node}", owner="postgres")
        self.process = None

    def start(self):
        # In the file, and not as options, which nothing could change later; the last of a name counts.
        with open(f"{self.data}/postgresql.conf", "a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in self.settings.items())
        self.process = self.hosts.start(
            self.group, self.node, [f"{PROGRAMS}/postgres", "-D", self.data, "-k", self.sockets], "postgres")

        def ready():
            self.hosts.assert_runs(self.process, f"{self.group}: PostgreSQL")
            return subprocess.run([f"{PROGRAMS}/pg_isready", "-q", "-h", self.sockets]).returncode == 0
        wait_until(f"{self.group}: PostgreSQL on node {self.node}", ready, 180)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.group}: PostgreSQL does not stop:\n{tail(self.process.said)}") from None

    def sql(self, statement, limit_s=600):
        return self.hosts.run("clients", None, [
            f"{PROGRAMS}/psql", "-h", self.sockets, "-U", "postgres", "-d", "postgres", "-qAtX",
            "-v", "ON_ERROR_STOP=1", "-c", statement], limit_s=limit_s).strip()

    def set(self, settings):
        """Changes settings that need no restart."""
        for key, value in settings.items():
            self.sql(f"alter system set {key} = '{value}'")
        self.sql("select pg_reload_conf()")
        for key, value in settings.items():
            wait_until(f"{self.group}: {key}", lambda: self.sql(f"show {key}") == value, 20)

    def fill_log(self):
        """Writes as much WAL as is recycled: from the next checkpoint on new WAL goes over old one, and no segment is made of zeros,
        which would be synced and shipped besides what is measured.
        """
        self.sql("select count(pg_logical_emit_message(false, 'old', repeat(md5(it::text), 25000))) "
                 f"from generate_series(1, {(self.recycled_mib << 20) // (25000 * 32)}) as it")

    def touch_all(self):
        """Writes every page once, so that its full-page image is behind it."""
        self.sql("checkpoint")
        for table in ("accounts", "branches", "tellers"):
            self.sql(f"update pgbench_{table} set filler = filler")
        self.sql("vacuum")

    def pgbench_init(self, scale):
        self.hosts.run("clients", None, [
            f"{PROGRAMS}/pgbench", "-i", "-q", "-s", scale, "-h", self.sockets, "-U", "postgres", "postgres"],
            limit_s=900)

    def command(self, work, clients, seconds, log=None):
        args = [f"{PROGRAMS}/pgbench", "-n", "-h", self.sockets, "-U", "postgres", "-c", clients,
                "-j", min(clients, 2), "-T", seconds]
        if work == "insert":
            script = self.hosts.path("insert.sql")
            if not os.path.exists(script):
                with open(script, "w") as file:
                    file.write(INSERT)
            args += ["-f", script]
        if work == "select":
            args += ["-S", "-M", "prepared"]
        if log:
            args += ["-l", f"--log-prefix={log}"]
        return args + ["postgres"]


class Peer:
    """One of what is compared: how it is made, what proves that it is that, what it counts."""

    works = ("tpcb", "insert")
    regimes = ("steady", "checkpoint")
    checkpoint_works = works
    # Whether WAL goes over old one, as where a server has run for a while, or into segments that are new.
    recycled = True

    def __init__(self, hosts, name, base_settings=None):
        self.hosts, self.name = hosts, name
        self.group = name
        self.settings = base_settings or {}
        self.server = None

    def make(self, template):
        raise NotImplementedError

    def select(self, regime):
        """Makes it the one that is measured now."""
        timeout = f"{INTERVAL_S}s" if regime == "checkpoint" else "1h"
        self.server.set({"checkpoint_timeout": timeout, "full_page_writes": self.full_page_writes()})
        self.server.sql("checkpoint")

    def touch_all(self):
        """After this nothing is written for the first time."""
        if self.recycled:
            self.server.fill_log()
            self.recycle()
        self.server.touch_all()

    def recycle(self):
        """Makes what is behind in the WAL into what is written next."""
        self.server.sql("checkpoint")

    def full_page_writes(self):
        return "on"

    def check(self):
        """Fails unless it is durable as its name says."""
        for setting in ("fsync", "synchronous_commit"):
            if self.server.sql(f"show {setting}") != "on":
                raise Failed(f"{self.name}: {setting} is not on")

    def settle(self, regime):
        """After its turn: has it do what it left to be done, which would be done in the next one's turn else."""
        if regime == "checkpoint":
            self.server.set({"checkpoint_timeout": "1h"})
            self.server.sql("checkpoint")

    def cached(self, begin):
        """Restarts it so that it reads all its pages from the kernel's page cache, and all of them are there; or as it was."""
        self.server.stop()
        self.server.settings["shared_buffers"] = CACHED_BUFFERS if begin else SETTINGS["shared_buffers"]
        self.server.start()
        if begin:
            self.hosts.run("clients", None, ["find", f"{self.server.data}/base", "-type", "f", "-exec", "dd", "if={}", "of=/dev/null",
                                             "bs=1M", "status=none", ";"])

    def counters(self):
        # What is read into the shared buffers: nothing where pages are warm, everything where they are too small.
        lsn, blocks, files = self.server.sql(
            "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn, (select sum(blks_read) from pg_stat_database), (select count(*) from pg_ls_waldir())").split("|")
        return {"wal": int(lsn), "blocks": int(blocks), "wal_files": int(files), "wire": self.hosts.link_bytes(), "cpu": self.hosts.group(self.group).cpu_s()}

    def warm_up(self, work, clients, seconds):
        args = self.server.command(work, clients, seconds)
        self.hosts.run("clients", "a", args, limit_s=seconds + 60)

    def measure(self, work, clients, seconds, at=()):
        """Runs clients for `seconds`. Returns (time since the begin, latency in s) of each transaction, and
        the counters at the moments `at`, in seconds, the begin and the end."""
        log = self.hosts.path("pgbench-log")
        for name in os.listdir(self.hosts.dir):
            if name.startswith("pgbench-log."):
                os.unlink(self.hosts.path(name))
        moments, began = [], time.time()
        moments.append((0.0, self.counters()))
        process = self.hosts.start("clients", "a", self.server.command(work, clients, seconds, log))
        for moment in at:
            time.sleep(max(0, began + moment - time.time()))
            moments.append((time.time() - began, self.counters()))
        try:
            process.wait(seconds + 120)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: pgbench does not end:\n{tail(process.said)}") from None
        moments.append((time.time() - began, self.counters()))
        said = read(process.said)
        if process.returncode != 0 or not re.search(r"^tps = ", said, re.M):
            raise Failed(f"{self.name}: pgbench failed:\n{said[-2000:]}")
        return self._transactions(began), moments

    def _transactions(self, began):
        found = []
        for name in os.listdir(self.hosts.dir):
            if not name.startswith("pgbench-log."):
                continue
            with open(self.hosts.path(name)) as file:
                for line in file:
                    fields = line.split(" ")
                    found.append((int(fields[4]) + int(fields[5]) / 1e6 - began, int(fields[2]) / 1e6))
            os.unlink(self.hosts.path(name))
        return found

    def copy(self, template, at):
        self.hosts.run("clients", None, ["cp", "-a", f"{template}/.", at], limit_s=900)

    def stop(self):
        if self.server and self.server.process and self.server.process.poll() is None:
            self.server.stop()


class Alone(Peer):
    """No second copy."""

    regimes = ("cached", *Peer.regimes)

    def make(self, template):
        data = self.hosts.make_dir("a", self.name, owner="postgres")
        self.copy(template, data)
        self.server = Server(self.hosts, self.group, "a", data, self.settings)
        self.server.start()


class Native(Alone):
    """PostgreSQL's own synchronous replication, `synchronous_commit = on`: on the standby's disk, too."""

    # It reads as the one without a standby does.
    regimes = Peer.regimes
    standby = None

    def make(self, template):
        data = self.hosts.make_dir("a", self.name, owner="postgres")
        self.copy(template, data)
        with open(f"{data}/pg_hba.conf", "a") as rules:
            rules.write("host replication all 10.92.0.0/24 trust\n")
        self.server = Server(self.hosts, self.group, "a", data, {
            **self.settings, "listen_addresses": ADDRESS["a"]})
        self.server.start()
        # Keeps what the standby lacks, and nothing else.
        self.server.sql("select pg_create_physical_replication_slot('standby', true)")
        data = self.hosts.make_dir("b", self.name, owner="postgres")
        self.copy(template, data)
        open(f"{data}/standby.signal", "w").close()
        self.standby = Server(self.hosts, self.group, "b", data, {
            **self.settings,
            "primary_slot_name": "standby", "primary_conninfo": f"host={ADDRESS['a']} user=postgres application_name=standby"})
        self.standby.start()
        self.server.set({"synchronous_standby_names": "standby"})
        wait_until(f"{self.name}: a synchronous standby", lambda: self._state() == "streaming sync", 60)

    def _state(self):
        return self.server.sql("select state || ' ' || sync_state from pg_stat_replication")

    def check(self):
        super().check()
        if self._state() != "streaming sync":
            raise Failed(f"{self.name}: the standby is not synchronous: {self._state()!r}")
        if self.standby.sql("show fsync") != "on":
            raise Failed(f"{self.name}: the standby does not sync")
        flushed = "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn) from pg_stat_replication"
        wait_until(f"{self.name}: all on the standby's disk", lambda: float(self.server.sql(flushed) or 1) <= 0, 20)

    def select(self, regime):
        super().select(regime)
        timeout = f"{INTERVAL_S}s" if regime == "checkpoint" else "1h"
        self.standby.set({"checkpoint_timeout": timeout})

    def settle(self, regime):
        super().settle(regime)
        # Asked there: what it says of itself to the other one is up to 10 s old.
        end = self.server.sql("select pg_current_wal_flush_lsn()")
        replayed = f"select pg_last_wal_replay_lsn() >= '{end}'"
        wait_until(f"{self.name}: all replayed by the standby", lambda: self.standby.sql(replayed) == "t", 60)
        if regime == "checkpoint":
            self.standby.set({"checkpoint_timeout": "1h"})
            self.standby.sql("checkpoint")

    def recycle(self):
        super().recycle()
        self.settle("steady")
        self.standby.sql("checkpoint")

    def stop(self):
        super().stop()
        if self.standby and self.standby.process:
            self.standby.stop()


class OnDuolog(Peer):
    """On a pair of Duolog nodes: a commit is on the disks of both."""

    regimes = ("cached", *Peer.regimes)
    pair = None

    def make(self, template):
        self.pair = Pair(self.hosts, self.group, [("data", "postgresql")])
        self.pair.make("postgres")
        self.pair.start_both()
        data = self.pair.directory("data")
        self.copy(template, data)
        os.chmod(data, 0o700)
        self.server = Server(self.hosts, self.group, "a", data, self.settings)
        self.server.start()

    def check(self):
        super().check()
        if not any(it.split()[1] == self.server.data for it in open("/proc/self/mounts")):
            raise Failed(f"{self.name}: {self.server.data} is not mounted")
        wait_until(f"{self.name}: every commit on both disks", self._durable, 20)
        self.pair.check()

    def _durable(self):
        log = (self.pair.status() or {"log": {}})["log"]
        return (log.get("acknowledged") or 0) >= log.get("committed", 1)

    def counters(self):
        return {**super().counters(), **self.pair.counters()}

    def settle(self, regime):
        super().settle(regime)
        self.pair.settle()

    def stop(self):
        super().stop()
        if self.pair:
            self.pair.stop()


class OnDuologNoImages(Peer):
    """The same server on the same pair with `full_page_writes` off, where pages are never torn. No full-page image
    in a regime, and it is the same; a table that only grows has none that matters, so inserts are left out.
    """

    regimes = ("checkpoint",)
    checkpoint_works = ("tpcb",)

    def __init__(self, hosts, name, of):
        super().__init__(hosts, name)
        self.of, self.group = of, of.group

    def make(self, template):
        self.server, self.pair = self.of.server, self.of.pair

    def full_page_writes(self):
        return "off"

    def check(self):
        self.of.check()

    def counters(self):
        return self.of.counters()

    def settle(self, regime):
        self.of.settle(regime)

    def stop(self):
        pass


def version():
    return run([f"{PROGRAMS}/postgres", "--version"]).strip()
