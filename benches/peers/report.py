"""What was found, for people: a table in Markdown, the bounds and whether they hold, and plots."""

import math
import os

import plot

POSTGRESQL = ("postgresql", "postgresql-sync", "postgresql-duolog", "postgresql-duolog-fpw-off", "postgresql-glusterfs")
MARIADB = ("mariadb", "mariadb-semisync", "mariadb-duolog", "mariadb-duolog-dw-off")
PEERS = ("floor", *POSTGRESQL, *MARIADB)


def line(cell):
    """A cell as it is found."""
    return (f"  {cell['work']:<6} {cell['clients']:>3} clients {cell['regime']:<11} {cell['peer']:<26}"
            f"{cell['tps']:>9.0f} TPS   p50 {cell['p50_ms']:.2f} p95 {cell['p95_ms']:.2f} p99 {cell['p99_ms']:.2f} ms   "
            f"CPU {cell.get('cpu_s_per_1000', 0):.2f} s/1000   wire {cell.get('wire_bytes', 0):.0f} B")


class Cells:
    """The cells of a run, by what they are of."""

    def __init__(self, found):
        self.found = {(it["peer"], it["work"], it["clients"], it["regime"]): it for it in found if it["kind"] == "cell"}

    def rows(self):
        """(work, clients, regime), in the order in which they were measured."""
        return list(dict.fromkeys(key[1:] for key in self.found))

    def ratio(self, peer, other, row, figure="tps"):
        one, two = self.found.get((peer, *row)), self.found.get((other, *row))
        if not one or not two or not two.get(figure):
            return None
        return one[figure] / two[figure]

    def ratios(self, peer, other, works=None, regimes=("steady",), clients=None, figure="tps"):
        found = [self.ratio(peer, other, row, figure) for row in self.rows()
                 if (not works or row[0] in works) and row[2] in regimes and (not clients or row[1] in clients)]
        return [it for it in found if it is not None]


def bounds(found):
    """Each bound: what, the value found, the bound, whether it holds. Those that nothing was measured for are left out."""
    cells, checkpoint = Cells(found), ("interval", "second half")
    duolog, sync = "postgresql-duolog", "postgresql-sync"
    off = "postgresql-duolog-fpw-off"

    def at_least(what, values, bound):
        return [(what, min(values), f">= {bound}", min(values) >= bound)] if values else []

    def at_most(what, values, bound):
        return [(what, max(values), f"<= {bound}", max(values) <= bound)] if values else []
    six = cells.ratios(duolog, sync, ("tpcb", "insert"))
    mean = [math.exp(sum(map(math.log, six)) / len(six))] if six else []
    rows = []
    rows += at_least("TPS, Duolog / own replication, steady: the least cell", six, 1.0)
    rows += at_least(f"the same: geometric mean of {len(six)} cells", mean, 1.1)
    rows += at_least("the same, checkpoints every 30 s, full_page_writes on: the least",
                     cells.ratios(duolog, sync, regimes=("interval",)), 0.95)
    rows += at_least("the same, full_page_writes off on Duolog: TPC-B, 8 clients",
                     cells.ratios(off, sync, ("tpcb",), ("interval",), (8,)), 1.3)
    rows += at_least("TPS, Duolog / unreplicated: TPC-B, 8 clients", cells.ratios(duolog, "postgresql", ("tpcb",), clients=(8,)), 0.65)
    rows += at_least("the same, full_page_writes off, checkpoints", cells.ratios(off, "postgresql", ("tpcb",), ("interval",), (8,)), 0.9)
    rows += at_least("TPS, Duolog / GlusterFS: TPC-B, the least", cells.ratios(duolog, "postgresql-glusterfs", ("tpcb",)), 4)
    rows += at_least("TPS, Duolog / GlusterFS: inserts, the least", cells.ratios(duolog, "postgresql-glusterfs", ("insert",)), 6)
    rows += at_least("TPS, MariaDB, Duolog / semi-synchronous, 8 clients",
                     cells.ratios("mariadb-duolog", "mariadb-semisync", clients=(8,)), 4)
    better = cells.ratios("mariadb-duolog-dw-off", "mariadb-duolog", clients=(8,))
    rows += at_least("TPS, MariaDB on Duolog, doublewrite off / on, 8 clients", better, 1.0)
    for part in checkpoint:
        rows += at_most(f"wire bytes a transaction, Duolog / own replication, {part}: the most",
                        cells.ratios(duolog, sync, regimes=(part,), figure="wire_bytes"), 1.0)
    rows += at_most("wire bytes a transaction, Duolog / own replication, steady: the most",
                    cells.ratios(duolog, sync, figure="wire_bytes"), 1.0)
    rows += at_most("CPU for 1000 transactions, Duolog / own replication: the most",
                    cells.ratios(duolog, sync, regimes=("steady", "interval"), figure="cpu_s_per_1000"), 1.2)
    for it in found:
        if it["kind"] == "floor":
            rows += at_most("8 KiB written and synced, p50: mount / floor", [it["ratio"]], 1.5)
            rows += at_least("cached reads: mount / plain", [it["read_ratio"]], 0.95)
    return rows


def table(found):
    """The whole report in Markdown."""
    run, cells = found[0], Cells(found)
    said = [f"# Peers, {run['date']}", "",
            f"{run['cpus']} cores ({run['cpu']}), kernel {run['kernel']}, {run['postgresql']}, commit {run['commit']}; load "
            f"{run['load']:.1f} at the begin. Round trip {run['round_trip_us']:.0f} us, MTU {run['mtu']}, flush "
            + (f"{run['flush_ms']} ms (a disk in memory)" if run["flush_ms"] is not None else "of the machine's own disk")
            + f". Medians of {run['rounds']} rounds of {run['seconds']} s, {run['checkpoint_rounds']} beside checkpoints.", ""]
    for names, base, sync in ((POSTGRESQL, "postgresql", "postgresql-sync"), (MARIADB, "mariadb", "mariadb-semisync")):
        rows = [row for row in cells.rows() if any((name, *row) in cells.found for name in names)]
        if not rows:
            continue
        said += ["| work | clients | regime | peer | TPS (least to most) | / alone | / own replication | p50 / p95 / p99 ms | "
                 "CPU s/1000 | log B | wire B |", "| " + "--- | " * 11]
        for row in rows:
            for name in names:
                cell = cells.found.get((name, *row))
                if not cell:
                    continue
                ratio = lambda other: "" if (value := cells.ratio(name, other, row)) is None else f"{value:.2f}"
                logged = cell.get("log_bytes") or cell.get("wal_bytes")
                said.append(
                    f"| {row[0]} | {row[1]} | {row[2]} | {name} | {cell['tps']:.0f} ({cell['tps_least']:.0f} to "
                    f"{cell['tps_most']:.0f}) | {ratio(base)} | {ratio(sync)} | {cell['p50_ms']:.2f} / {cell['p95_ms']:.2f} / "
                    f"{cell['p99_ms']:.2f} | {cell.get('cpu_s_per_1000', 0):.3f} | {logged or 0:.0f} | {cell.get('wire_bytes', 0):.0f} |")
        said.append("")
    for it in found:
        if it["kind"] == "floor":
            said += ["| floor, p50 | us |", "| --- | --- |",
                     f"| fdatasync of 8 KiB, node a / node b | {it['fdatasync_a_us']} / {it['fdatasync_b_us']} |",
                     f"| QUIC round trip of 8 KiB | {it['quic_us']} |", f"| longer way | {it['distance_us']:.0f} |",
                     f"| FUSE, a write and a sync | {it['fuse_us']} |", f"| **floor** | **{it['floor_us']}** |",
                     f"| fsync through the mount / plain | {it['fsync_mount_us']} / {it['fsync_plain_us']} |",
                     f"| the mount / the floor | {it['ratio']} |",
                     f"| open, write, fsync, close: mount / plain | {it['reopen_mount_us']} / {it['reopen_plain_us']} |",
                     f"| cached reads of 8 KiB, MB/s, mount / plain | {it['read_mount_mb_s']} / {it['read_plain_mb_s']} = {it['read_ratio']} |", ""]
    failed = [it for it in found if it["kind"] == "failed"]
    said += [f"- left out: {it['peer']}: {it['why'].splitlines()[0]}" for it in failed] + ([""] if failed else [])
    rows = bounds(found)
    if rows:
        said += ["| bound | found | bound | |", "| --- | --- | --- | --- |"]
        said += [f"| {what} | {value:.2f} | {bound} | {'held' if holds else '**missed**'} |" for what, value, bound, holds in rows]
    return "\n".join(said) + "\n"


def write(found, out):
    """Writes the table and the plots. Returns how many bounds are missed."""
    text = table(found)
    with open(os.path.join(out, "table.md"), "w") as file:
        file.write(text)
    for name, drawing in plot.all_of(found, Cells(found)).items():
        with open(os.path.join(out, f"{name}.svg"), "w") as file:
            file.write(drawing)
    rows = bounds(found)
    print("\nbounds")
    for what, value, bound, holds in rows:
        print(f"  {'held  ' if holds else 'MISSED'} {value:8.2f} {bound:<8} {what}")
    # Those bounds are of a near link and a quick disk; on others the figures are shown, and judged by people.
    usual = found[0]["flush_ms"] is None and not found[0]["rtt_ms"]
    return sum(not it[3] for it in rows) if usual else 0
