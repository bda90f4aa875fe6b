"""What was found, for people: a table in Markdown, the bounds and whether they hold, and plots."""

import math
import os

import plot

POSTGRESQL = ("postgresql", "postgresql-sync", "postgresql-duolog", "postgresql-duolog-fpw-off", "postgresql-glusterfs")
MARIADB = ("mariadb", "mariadb-semisync", "mariadb-duolog", "mariadb-duolog-dw-off")
# What cached reads are compared of, as `reads` names it.
READS = {"mount": "mount", "plain": "plain directory", "plain_single": "plain directory, read page by page before",
         "memory_single": "tmpfs, huge=never", "memory_large": "tmpfs, huge=always"}
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
    """Each bound: what, the value found or none, the bound, whether it holds or none. A bound of nothing is a figure to look at."""
    cells, checkpoint = Cells(found), ("interval", "second half")
    duolog, sync, alone, gluster = "postgresql-duolog", "postgresql-sync", "postgresql", "postgresql-glusterfs"
    off, rows = "postgresql-duolog-fpw-off", []

    def at_least(what, values, bound):
        rows.append((what, min(values), f">= {bound}", min(values) >= bound) if values else (what, None, f">= {bound}", None))

    def at_most(what, values, bound):
        rows.append((what, max(values), f"<= {bound}", max(values) <= bound) if values else (what, None, f"<= {bound}", None))

    def shown(what, values):
        rows.extend((what, it, "", None) for it in values[:1])
    six = cells.ratios(duolog, sync, ("tpcb", "insert"))
    mean = [math.exp(sum(map(math.log, six)) / len(six))] if six else []
    at_least(f"PostgreSQL, TPS, Duolog / own replication, steady: the least of {len(six)} cells", six, 1.0)
    at_least("the same: geometric mean", mean, 1.1)
    at_least("the same, checkpoints every 30 s, full_page_writes on: the least", cells.ratios(duolog, sync, regimes=("interval",)), 0.95)
    at_least("the same, full_page_writes off on Duolog: TPC-B, 8 clients", cells.ratios(off, sync, ("tpcb",), ("interval",), (8,)), 1.3)
    at_least("PostgreSQL, TPS, Duolog / unreplicated: TPC-B, 8 clients", cells.ratios(duolog, alone, ("tpcb",), clients=(8,)), 0.65)
    at_least("the same, full_page_writes off on Duolog, checkpoints", cells.ratios(off, alone, ("tpcb",), ("interval",), (8,)), 0.9)
    at_least("PostgreSQL, TPS, Duolog / GlusterFS: TPC-B, the least", cells.ratios(duolog, gluster, ("tpcb",)), 4)
    at_least("PostgreSQL, TPS, Duolog / GlusterFS: inserts, the least", cells.ratios(duolog, gluster, ("insert",)), 6)
    at_least("MariaDB, TPS, Duolog / semi-synchronous, 8 clients", cells.ratios("mariadb-duolog", "mariadb-semisync", clients=(8,)), 4)
    shown("the same, doublewrite off on Duolog", cells.ratios("mariadb-duolog-dw-off", "mariadb-semisync", clients=(8,)))
    at_least("MariaDB on Duolog, TPS, doublewrite off / on, 8 clients", cells.ratios("mariadb-duolog-dw-off", "mariadb-duolog", clients=(8,)), 1.0)
    shown("MariaDB, TPS, Duolog with doublewrite off / unreplicated, 8 clients", cells.ratios("mariadb-duolog-dw-off", "mariadb", clients=(8,)))
    at_most("wire bytes a transaction, Duolog / own replication, steady: the most", cells.ratios(duolog, sync, figure="wire_bytes"), 1.0)
    for part in checkpoint:
        of = "the whole interval" if part == "interval" else "its second half"
        at_most(f"the same, checkpoints, {of}: the most", cells.ratios(duolog, sync, regimes=(part,), figure="wire_bytes"), 1.0)
    at_most("CPU for 1000 transactions, Duolog / own replication: the most",
            cells.ratios(duolog, sync, regimes=("steady", "interval"), figure="cpu_s_per_1000"), 1.2)
    floor = next((it for it in found if it["kind"] == "floor"), {})
    one = lambda name: [floor[name]] if name in floor else []
    at_most("8 KiB written and synced, p50: mount / floor", one("ratio"), 1.5)
    at_least("cached reads of 8 KiB: mount / plain", one("read_ratio"), 0.95)
    shown("cached reads of 8 KiB: mount / plain directory whose cache holds single pages, too", one("read_ratio_single"))
    shown("pgbench -S from the page cache, TPS, Duolog / unreplicated: the least",
          sorted(cells.ratios(duolog, alone, ("select",), ("cached",))))
    return rows


def table(found):
    """The whole report in Markdown."""
    run, cells = found[0], Cells(found)
    said = [f"# Peers, {run['date']}", "",
            f"{run['cpus']} cores ({run['cpu']}), kernel {run['kernel']}, {run['postgresql']}, commit {run['commit']}; load "
            f"{run['load']:.1f} at the begin. Round trip {run['round_trip_us']:.0f} us, MTU {run['mtu']}, flush "
            + (f"{run['flush_ms']} ms (a disk in memory)" if run["flush_ms"] is not None else "of the machine's own disk")
            + f". Medians of {run['rounds']} rounds of {run['seconds']} s, {run['checkpoint_rounds']} beside checkpoints. WAL {run['wal']}."
            + ("" if any(it["kind"] == "end" for it in found) else " **Not whole: the run was ended, or goes on.**"), ""]
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
                     "", "| a cached read of 8 KiB | ns of a processor | pages a folio | adjacent in memory |", "| --- | --- | --- | --- |"]
            said += [f"| {what} | {it[f'read_{name}_ns']:.0f} | {it[f'folio_{name}'] or '?'} | {it[f'adjacent_{name}']} |" for name, what in READS.items()] + [""]
    failed = [it for it in found if it["kind"] == "failed"]
    said += [f"- left out: {it['peer']}: {it['why'].splitlines()[0]}" for it in failed] + ([""] if failed else [])
    said += ["| bound | found | bound | |", "| --- | --- | --- | --- |"]
    said += [f"| {what} | {'not measured' if value is None else f'{value:.2f}'} | {bound} | {verdict(holds).strip().replace('MISSED', '**missed**')} |"
             for what, value, bound, holds in bounds(found)]
    return "\n".join(said) + "\n"


def verdict(holds):
    """In a word, of the same width."""
    return {True: "held  ", False: "MISSED", None: "      "}[holds]


def plots(found):
    """By the name of a file: title and drawing."""
    return plot.all_of(found, Cells(found))


def write(found, out):
    """Writes the table and the plots. Returns how many bounds are missed."""
    files = {"table.md": table(found), **{f"{name}.svg": drawing for name, (_, drawing) in plots(found).items()}}
    for name, text in files.items():
        # A run that is ended meanwhile leaves the one before.
        with open(os.path.join(out, f".{name}"), "w") as file:
            file.write(text)
        os.rename(os.path.join(out, f".{name}"), os.path.join(out, name))
    # Those bounds are of a near link and a quick disk; on others the figures are shown, and judged by people.
    usual = found[0]["flush_ms"] is None and not found[0]["rtt_ms"]
    return sum(it[3] is False for it in bounds(found)) if usual else 0


def say(found):
    """Prints each bound, what was found, and whether it holds."""
    print("\nbounds")
    for what, value, bound, holds in bounds(found):
        print(f"  {verdict(holds)} {'not measured' if value is None else f'{value:.2f}':>12} {bound:<8} {what}")
