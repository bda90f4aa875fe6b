# Two nodes, each under a systemd of its own, whose service is Debian's unit of PostgreSQL, with a witness and a
# client on a third computer: the unit goes from one node to the other, in order and without. A part of
# tests/systemd, which reads it.
#
# All the while a client commits rows through the clients' address, and somebody looks whether the unit runs on
# both nodes at a time.

unit=postgresql@15-main
data=/var/lib/postgresql/15/main
address=10.7.0.9

# --- Two computers, and what is between them: a bridge, on a computer without a systemd. ---
boot 1
boot 2
unshare --mount --pid --fork --kill-child --mount-proc --net sleep infinity &
beside+=($!)
third="$(first_below $!)" || fail "the third computer does not begin"
third() { nsenter -t "$third" -m -n -p "$@"; }
# With the numbers that processes have here.
between() { nsenter -t "$third" -n ip "$@"; }
between link set lo up
between link add lan type bridge forward_delay 0
between address add 10.7.0.3/24 dev lan
between link set lan up
for n in 1 2; do
    on $n is_up
    between link add port$n type veth peer name site0 netns "${first[n]}"
    between link set port$n master lan up
    on $n check "its address" sh -c "ip address add 10.7.0.$n/24 dev site0 && ip link set site0 up"
done
phase "two of them run"

# --- The package and PostgreSQL on both, equal settings, and data on the first. ---
for n in 1 2; do
    # What dpkg does for others (manual pages) is not looked at.
    on $n inside dpkg --force-unsafe-io --no-triggers --install /duolog.deb >"$work/$n/installed" 2>&1 &
    installs[n]=$!
    on $n write /etc/systemd/system/var-lib-postgresql.mount <<'UNIT'
[Mount]
What=postgresql
Where=/var/lib/postgresql
Type=tmpfs
Options=mode=755
UNIT
    on $n check "a disk for PostgreSQL" sh -c 'systemctl daemon-reload && systemctl start var-lib-postgresql.mount && chown postgres: /var/lib/postgresql'
done
on 1 check "a cluster of Debian's" sh -c 'rm -rf /etc/postgresql && pg_createcluster 15 main -- --no-sync'
on 1 write /etc/postgresql/15/main/conf.d/pair.conf <<'CONF'
listen_addresses = '*'
shared_buffers = 16MB
CONF
on 1 check "clients are let in" sh -c 'echo "host all postgres 10.7.0.0/24 trust" >>/etc/postgresql/15/main/pg_hba.conf'
# What needs PostgreSQL, also while it ends.
for n in 1 2; do
    on $n write /etc/systemd/system/site-app.service <<'UNIT'
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'sleep 0.3; pg_isready -q -t 1; echo "PostgreSQL: $?" >>/var/log/site-app'
UNIT
done
on 2 check "none of its own" rm -rf /etc/postgresql
on 1 inside tar -C /etc -c postgresql | on 2 inside tar -C /etc -x
on 2 check "a directory for the copy" install -d -o postgres -g postgres -m 700 "$data"
for n in 1 2; do
    wait "${installs[n]}" || { cat "$work/$n/installed" >&2; fail "the package is not installed"; }
done
keys="$work/keys"
mkdir "$keys"
for n in 1 2; do
    prints[n]="$("$binary" keygen --out "$keys" --name node$n | grep -o 'sha256:[0-9a-f]*' | tail -n 1)"
    "$binary" keygen --pair-key "$keys/witness$n.key" >/dev/null
done
"$binary" keygen --pair-key "$keys/pair.key" >/dev/null
cluster=00000000000000000000000000000003
cat >"$keys/witness.toml" <<TOML
state_dir = "$work/witness"
[[pair]]
cluster = "$cluster"
node1_key = "witness1.key"
node2_key = "witness2.key"
TOML
third "$binary" witness --config "$keys/witness.toml" >"$work/witness.said" 2>&1 &
beside+=($!)
for n in 1 2; do
    other=$((3 - n))
    tar -C "$keys" -c . | on $n inside tar -C /etc/duolog -x
    on $n write /etc/duolog/duolog.toml <<TOML
[cluster]
id = "$cluster"
[node]
number = $n
state_dir = "/var/lib/duolog/1"
listen = "10.7.0.$n:7433"
certificate = "node$n.crt"
key = "node$n.key"
pair_key = "pair.key"
[peer]
address = "10.7.0.$other:7433"
fingerprint = "${prints[other]}"
[witness]
address = "10.7.0.3:7432"
key = "witness$n.key"
[pair]
auto_rejoin = true
[[virtual_ip]]
address = "$address/24"
[[service]]
preset = "postgresql"
unit = "$unit.service"
stop_seconds = 5
[[service]]
name = "app"
unit = "site-app.service"
[[directory]]
path = "$data"
preset = "postgresql"
[log]
segment_bytes = 4194304
TOML
    on $n check "the directory is adopted" duolog adopt --config /etc/duolog/duolog.toml
done
phase "set up"

# stands N WORDS: the sentence of its status has these words, or comes to.
stands() { on "$1" within 40 "node$1: $2" sh -c 'systemctl show --value -p StatusText duolog | grep -q "$1"' sh "$2"; }
on 2 check "the second node starts" systemctl start --no-block duolog
on 1 check "the first node starts" systemctl start duolog
stands 1 "every commit is on both nodes"
stands 2 "has every commit, receives the log"
phase "PRIM and SECOND"

# --- Who looks on: a client that commits, and somebody who sees where units run. ---
query() { third timeout 10 psql -X -q -A -t -h "$address" -U postgres -d postgres -c "$1"; }
query "CREATE TABLE committed (n int PRIMARY KEY)" || fail "a client cannot make a table"
touch "$work/acknowledged" "$work/both"
third bash -c '
    for ((n = 1; ; n++)); do
        if PGCONNECT_TIMEOUT=2 timeout 4 psql -X -q -h "$1" -U postgres -d postgres -c "INSERT INTO committed VALUES ($n)"; then
            echo $n >>"$2"
        else
            sleep 0.1
        fi
    done' client "$address" "$work/acknowledged" >"$work/client" 2>&1 &
beside+=($!)
# populated N: somebody is in the slice of that node's units.
populated() {
    local somebody=0
    { read -r _ somebody <"$group/$1/duolog1.slice/cgroup.events"; } 2>/dev/null
    [ "$somebody" = 1 ]
}
while :; do
    if populated 1 && populated 2 && populated 1; then echo "$SECONDS s" >>"$work/both"; fi
    sleep 0.02
done &
beside+=($!)

# begins WHAT: from here on the modules' logs are read, and rows are counted.
begins() {
    for n in "${!first[@]}"; do
        logged[n]="$(on $n inside stat -c %s /var/lib/duolog/1/logs/module.log)"
    done
    before="$(wc -l <"$work/acknowledged")"
}
# said N PATTERN...: lines of its module log since then, in this order.
said() {
    local n="$1" pattern at
    shift
    on "$n" inside tail -c "+$((logged[n] + 1))" /var/lib/duolog/1/logs/module.log >"$work/log"
    for pattern in "$@"; do
        at="$(grep -n -m 1 -E -- "$pattern" "$work/log" | cut -d: -f1)" || fail "node$n does not say, or not in its place: $pattern"
        sed -i "1,${at}d" "$work/log"
        checks=$((checks + 1))
    done
}
# ended SERVICE KILLED, promoted WHY: what it says of a service's end, and of a takeover.
ended() { echo "service ended.*\"killed\":$2,.*\"service\":\"$1\""; }
promoted() { echo "this node is promoted.*\"decided_by\":\"witness .*\"why\":\"$1\""; }
# serves N: its unit runs, there alone, on the mount; the client goes on there, and every row that it was told is
# committed is there.
serves() {
    local n="$1" other=$((3 - $1)) until=$((SECONDS + 30)) main
    until [ "$(wc -l <"$work/acknowledged")" -ge $((before + 10)) ]; do
        [ $SECONDS -lt $until ] || { tail -n 5 "$work/client" >&2; fail "the client does not go on"; }
        sleep 0.1
    done
    on "$n" is $unit ActiveState active
    on "$n" is $unit Slice duolog1.slice
    main="$(on "$n" inside head -n 1 "$data/postmaster.pid")"
    on "$n" is $unit MainPID "$main"
    on "$n" check "PostgreSQL is in its unit" grep -qx "$main" "/sys/fs/cgroup/duolog1.slice/$unit.service/cgroup.procs"
    populated "$n" || fail "nobody is seen in the slice of node$n"
    on "$n" check "PostgreSQL is on the mount" sh -c "findmnt -n -o FSTYPE $data | grep -qx fuse.duolog"
    [ -z "${first[other]:-}" ] || rests "$other"
    [ ! -s "$work/both" ] || fail "the unit ran on both nodes at a time, at $(paste -sd, "$work/both")"
    sort "$work/acknowledged" >"$work/acknowledged.sorted"
    query "SELECT n FROM committed" | sort >"$work/committed"
    comm -23 "$work/acknowledged.sorted" "$work/committed" >"$work/lost"
    [ ! -s "$work/lost" ] || fail "rows are lost: $(paste -sd, "$work/lost")"
    checks=$((checks + 4))
}
# rests N: nothing runs at that node.
rests() {
    ! populated "$1" || fail "somebody is in the slice of node$1"
    on "$1" refused "PostgreSQL runs on node$1" '' pgrep -x postgres
    on "$1" refused "the directory is mounted on node$1" '' sh -c "findmnt -n -o FSTYPE $data | grep fuse"
    checks=$((checks + 1))
}
# is_refused N: nobody can start the unit there.
is_refused() {
    on "$1" refused "the unit is started on node$1" '' sh -c "systemctl start $unit; sleep 0.2; systemctl is-active $unit"
    # Debian's unit ignores how its start ends, so that no exit code is told.
    on "$1" within 5 "it is the slice that keeps it out" sh -c "journalctl -q --no-pager | grep -q '$unit.service: Failed at step CGROUP'"
    rests "$1"
}
begins
serves 1
phase "PostgreSQL serves"

# --- A swap; nobody starts the unit where it was. ---
begins
on 1 check "the nodes are swapped" duolog swap --yes --config /etc/duolog/duolog.toml
stands 2 "every commit is on both nodes"
stands 1 "has every commit, receives the log"
serves 2
said 1 "stops services" "$(ended app false)" "$(ended postgresql false)" \
    "swaps: services stopped, node2 takes the rest of the log" "has every commit, receives the log from node2"
said 2 "swaps: waits for node1 to hand over" "finishes applying the log, mounts and starts services" \
    "service started" "service started" "every commit is on both nodes; node1 confirms each"
is_refused 1
phase "swapped"

# --- A swap of a PostgreSQL that hangs: when its time is over it is ended by force, and the swap goes on. ---
begins
on 2 check "PostgreSQL hangs" sh -c "kill -STOP \$(head -n 1 $data/postmaster.pid)"
took=$SECONDS
on 2 check "the nodes are swapped all the same" duolog swap --yes --config /etc/duolog/duolog.toml
took=$((SECONDS - took))
[ $took -ge 5 ] || fail "PostgreSQL did not have the time that it has: $took s"
stands 1 "every commit is on both nodes"
stands 2 "has every commit, receives the log"
serves 1
said 2 "stops services" "$(ended app false)" "the unit did not end in its time: it is ended by force" \
    "$(ended postgresql true)" "swaps: services stopped, node1 takes the rest of the log"
on 2 check "its stop is seen to have been killed" grep -q 'killed: it took too long' /var/lib/duolog/1/logs/commands.log
phase "swapped by force"

# --- The daemon of the primary is killed: its guardian ends the unit, and the other node is told. ---
begins
on 1 check "the daemon is killed" kill -KILL "$(on 1 daemon duolog)"
stands 2 "serves without a second copy\|every commit is on both nodes"
serves 2
stands 1 "has every commit, receives the log"
stands 2 "every commit is on both nodes"
said 1 "fenced: nothing is served here any more" "has every commit, receives the log from node2"
said 2 "$(promoted "primary gone")" \
    "finishes applying the log, mounts and starts services" "service started" "every commit is on both nodes"
phase "the daemon killed"

# --- The primary is cut off from the other node and the witness, and not from clients: nothing more is committed,
# and it ends the unit by itself, before the other node takes over. ---
begins
nsenter -t "${first[2]}" -n nft -f - <<'RULES'
table inet cut {
    chain in { type filter hook input priority 0; iifname "site0" meta l4proto udp drop; }
    chain out { type filter hook output priority 0; oifname "site0" meta l4proto udp drop; }
}
RULES
stands 1 "serves without a second copy"
serves 1
nsenter -t "${first[2]}" -n nft delete table inet cut
stands 2 "has every commit, receives the log"
stands 1 "every commit is on both nodes"
said 2 "ends what is served, at once" "stops services" "node1 is not heard and the witness does not answer" \
    "not uptodate: takes the log and what changed from node1" "has every commit, receives the log from node1"
said 1 "$(promoted "primary lost")" "service started" \
    "serves without a second copy: node2 is not connected" "every commit is on both nodes; node2 confirms each"
phase "cut off"

# --- The computer of the primary is lost. ---
begins
kill -KILL "${booted[1]}"
wait "${booted[1]}" 2>/dev/null || true
unset "booted[1]" "first[1]"
stands 2 "serves without a second copy"
serves 2
said 2 "$(promoted "primary lost")" "service started" \
    "serves without a second copy: node1 is not connected"
phase "the computer lost"

# --- The other one is shut down: what needs PostgreSQL ends before it, though systemd ends Debian's unit by itself
# then, because it requires the disk. ---
on 2 check "PostgreSQL requires its disk" sh -c "systemctl show --value -p Requires $unit | grep -q var-lib-postgresql.mount"
exec 9<"/proc/${first[2]}/root/var/log/site-app"
cat <&9 >/dev/null
on 2 inside systemctl --no-block poweroff 2>/dev/null || true
gone 2 || fail "the shutdown takes longer than 30 s"
[ "$(cat <&9)" = "PostgreSQL: 0" ] || fail "PostgreSQL ended before what needs it"
checks=$((checks + 1))
phase "shut down, with $(wc -l <"$work/acknowledged") rows"
