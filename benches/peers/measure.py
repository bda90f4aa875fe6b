"""What one cell is: a peer, a work, so many clients; measured in rounds, told as medians.

A round's figures are of all transactions that ended in its window. Percentiles are those of single rounds,
and their median is told.
"""

import statistics


def window(transactions, moments, begin, end):
    """The figures of one window, in seconds since the begin: `begin` and `end` are indexes of `moments`."""
    (since, before), (until, after) = moments[begin], moments[end]
    # What the clients need to connect and to say goodbye is no transaction's.
    ended = sorted(latency for at, latency in transactions if since <= at <= until)
    if not ended:
        return None
    if begin == 0 and end == len(moments) - 1:
        times = [at for at, _ in transactions]
        first = min(at - latency for at, latency in transactions)
        seconds = max(times) - first
    else:
        seconds = until - since
    count = len(ended)
    delta = {key: after[key] - before[key] for key in after if after[key] is not None and before[key] is not None}
    found = {
        "transactions": count, "seconds": round(seconds, 3), "tps": round(count / seconds, 1),
        "p50_ms": percentile(ended, 0.50), "p95_ms": percentile(ended, 0.95), "p99_ms": percentile(ended, 0.99),
    }
    return {**found, **per_transaction(delta, count)}


def per_transaction(delta, count):
    """Counters as what one transaction (or 1000 of them) took."""
    found = {}
    if "cpu" in delta:
        found["cpu_s_per_1000"] = round(delta["cpu"] * 1000 / count, 4)
    # `wal`: what the server logs; `log`: what Duolog logs; `wire`: the link's own counter, with all headers,
    # both directions; `node_wire`: what Duolog counts.
    if "wal_files" in delta:
        # Not of a transaction: how many there are more than before.
        found["wal_files"] = delta["wal_files"]
    if "blocks" in delta:
        found["blocks_read"] = round(delta["blocks"] / count, 2)
    for key in ("wal", "log", "wire", "node_wire", "client_cpu"):
        if key in delta:
            found[f"{key}_bytes" if key != "client_cpu" else key] = round(delta[key] / count, 1)
    return found


def percentile(ordered, part):
    """Of latencies in s, in ms."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 3)


def median_of(rounds):
    """The medians of each figure over the rounds, and the spread of the TPS."""
    keys = {key for it in rounds for key in it}
    found = {key: round(statistics.median(it[key] for it in rounds if key in it), 4) for key in keys}
    found["rounds"] = len(rounds)
    found["tps_least"], found["tps_most"] = min(it["tps"] for it in rounds), max(it["tps"] for it in rounds)
    return found
