# One node under systemd: what `systemctl` and a crash do to it, and to the units that are its services. A part
# of tests/systemd, which reads it.

boot 1
is_up
phase "systemd runs: $(inside systemctl --version | head -n 1)"

# --- The package; a node of a pair whose other one is lost, and one without a peer. ---
check "the package is installed under systemd" dpkg --force-unsafe-io --install /duolog.deb
data=/var/lib/site/data
# A service that ends in order and says so, and what it leaves: another session, another parent.
write /usr/local/bin/site <<'SH'
#!/bin/sh
setsid sh -c 'trap "" TERM HUP; echo $$ >/var/lib/site/orphan; exec sleep 600' &
trap 'echo ended >"$1/ended"; exit 0' TERM
echo "$(stat -f -c %T "$1")" >"$1/seen"
echo $$ >/var/lib/site/service
while :; do date +%s >"$1/beat"; sleep 0.1 & wait $!; done
SH
# Two services that are units. The first one is as untidy as units get: slow on its way up, started again by
# systemd if it were up to its file, and ended halfway. Each says when it begins and ends, and goes on
# saying that it runs.
write /usr/local/bin/site-unit <<'SH'
#!/bin/sh
[ "$1" != db ] || setsid sh -c 'trap "" TERM HUP; echo $$ >/var/lib/site/unit-orphan; exec sleep 600' &
# The one that ends first takes longer, so that the order is seen.
trap '[ "$1" != app ] || sleep 0.3; echo "$1 ended" >>/var/lib/site/order; exit 0' TERM
echo "$1 began" >>/var/lib/site/order
stat -f -c %T /var/lib/site/data >"/var/lib/site/$1-seen"
while :; do date +%s%N >"/var/lib/site/$1-beat"; sleep 0.02 & wait $!; done
SH
write /etc/systemd/system/site-db.service <<'UNIT'
[Unit]
After=site-late.service
[Service]
ExecStartPre=/bin/true
ExecStartPre=/bin/true
ExecStartPre=/bin/true
ExecStartPre=/bin/sleep 0.1
ExecStartPre=/bin/true
ExecStartPre=/bin/true
ExecStart=/usr/local/bin/site-unit db
Restart=always
RestartSec=100ms
KillMode=mixed
UNIT
write /etc/systemd/system/site-app@.service <<'UNIT'
[Service]
ExecStart=/usr/local/bin/site-unit app
PrivateTmp=yes
ProtectSystem=full
MountFlags=private
UNIT
# What the first one waits for, where it is asked for: it goes on when it is told to.
write /etc/systemd/system/site-late.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until [ -e /run/site-late ]; do sleep 0.05; done'
UNIT
node() { # node INSTANCE DIRECTORY: its configuration, on standard output
    cat <<TOML
[cluster]
id = "0000000000000000000000000000000$1"
[node]
number = 1
instance = $1
state_dir = "/var/lib/duolog/$1"
listen = "127.0.0.1:$((17432 + $1))"
[[directory]]
path = "$2"
preset = "none"
[log]
segment_bytes = 4194304
TOML
}
check "keys" sh -c 'mkdir -p /etc/duolog/2 && cd /etc/duolog && for n in 1 2; do duolog keygen --out . --name node$n; done && duolog keygen --pair-key pair.key'
peer="$(grep -o 'sha256:[0-9a-f]*' "$work/said" | tail -n 1)"
{
    node 1 "$data" | sed '/^instance/a certificate = "node1.crt"\nkey = "node1.key"\npair_key = "pair.key"'
    cat <<TOML
[peer]
address = "127.0.0.2:17433"
fingerprint = "$peer"
[pair]
profile = "fast"
[[virtual_ip]]
address = "10.7.0.9/24"
device = "site0"
[[service]]
name = "site"
start = ["/usr/local/bin/site", "$data"]
[[service]]
name = "db"
unit = "site-db.service"
stop_seconds = 3
[[service]]
name = "app"
unit = "site-app@1.service"
TOML
} | write /etc/duolog/duolog.toml
node 2 /var/lib/site/other | write /etc/duolog/2/duolog.toml
phase "installed"
check "directories" mkdir -p "$data" /var/lib/site/other
check "a network for the clients' address" sh -c 'ip link add site0 type veth peer name site1 && ip address add 10.7.0.1/24 dev site0 && ip link set site0 up && ip link set site1 up'
check "a directory is adopted" duolog adopt --config /etc/duolog/duolog.toml
check "another one" duolog adopt --config /etc/duolog/2/duolog.toml
phase "adopted"
has_address() { [ -n "$(inside ip -o address show dev site0 to 10.7.0.9)" ]; }
mounted() { [ "$(inside findmnt -n -o FSTYPE "$1")" = fuse.duolog ]; }
# The program of a service that was started may take a moment to be its own; the rest may not.
served() {
    mounted "$data" && has_address || return 1
    [ "$(shows site-db ActiveState) $(shows site-app@1 ActiveState)" = "active active" ] || return 1
    for _ in $(seq 50); do
        inside pgrep -f '^/bin/sh /usr/local/bin/site ' >/dev/null && return
        sleep 0.1
    done
    return 1
}
# Every process in the slice of the units.
in_slice() { inside sh -c 'find /sys/fs/cgroup/duolog1.slice -name cgroup.procs -exec cat {} +'; }
# nothing_left WHEN: of all that was served.
nothing_left() {
    ! mounted "$data" || fail "$1: the directory is mounted still"
    ! has_address || fail "$1: the clients' address is here still"
    inside sh -c '! pgrep -f "^/bin/sh /usr/local/bin/site"' >"$work/said" || fail "$1: the service runs"
    inside sh -c '! kill -0 "$(cat /var/lib/site/orphan)" 2>/dev/null' || fail "$1: what the service left runs"
    [ -z "$(in_slice)" ] || fail "$1: processes of units run"
    inside sh -c '! kill -0 "$(cat /var/lib/site/unit-orphan)" 2>/dev/null' || fail "$1: what a unit left runs"
    [ -z "$(inside pgrep -f '^/?.*duolog run --config /etc/duolog/duolog.toml')" ] || fail "$1: the node runs"
    checks=$((checks + 7))
}

# --- Started: systemctl returns once it serves, not before. ---
check "a unit with a view of its own is there before" systemd-run --quiet --unit=early -p PrivateTmp=yes -p ProtectSystem=full sleep 600
is duolog ActiveState inactive
check "the node starts" systemctl start duolog
served || fail "systemctl start returned before the node served"
is duolog ActiveState active
is duolog SubState running
shows duolog StatusText | grep "without a second copy" >/dev/null || fail "the status does not say how the node stands: $(shows duolog StatusText)"
[ "$(inside cat $data/seen)" != tmpfs ] || fail "the service does not see the mount"
checks=$((checks + 3))
is site-db Slice duolog1.slice
is site-db Restart no
is site-db KillMode process
refused "nobody else may change what systemd is told" '' sh -c 'find /run/systemd/system -newer /etc/duolog/duolog.toml -perm /022 ! -type l | grep .'
[ "$(inside cat /var/lib/site/db-seen)" = "$(inside cat $data/seen)" ] || fail "a unit does not see the mount"
[ "$(inside stat -c %a /sys/fs/cgroup/duolog1.slice)" = 755 ] || fail "anybody may make groups in the slice, and so kill units"
[ "$(inside paste -sd, /var/lib/site/order)" = "db began,app began" ] || fail "units were not started in order: $(inside cat /var/lib/site/order)"
inside sh -c 'cat /sys/fs/cgroup/duolog1.slice/site-db.service/cgroup.procs' | grep -qx "$(inside cat /var/lib/site/unit-orphan)" || fail "what a unit left is not in its group"
checks=$((checks + 3))
check "an instance that serves by itself starts beside it" systemctl start duolog@2
mounted /var/lib/site/other || fail "systemctl start returned before the node served"
is duolog@2 SubState running
phase "started"

# --- Who is outside of the unit sees the mount. ---
type='findmnt -n -o FSTYPE'
check "a shell sees the mount" sh -c "$type $data | grep -q fuse.duolog"
check "another unit sees it, and writes there" systemd-run --quiet --wait --pipe sh -c "$type $data | grep -q fuse.duolog && echo unit >$data/by-unit"
check "so does one with a view of its own" systemd-run --quiet --wait --pipe -p PrivateTmp=yes -p ProtectSystem=full sh -c "$type $data | grep -q fuse.duolog"
check "so does one that began before" sh -c "nsenter -t \$(systemctl show --value -p MainPID early) -m $type $data | grep -q fuse.duolog"
check "what the unit wrote is there" grep -q unit "$data/by-unit"
# So that this is seen to work: hardened, it is seen by nobody, and this test says so.
check "a hardened instance" sh -c 'systemctl stop duolog@2 && mkdir -p /run/systemd/system/duolog@2.service.d && printf "[Service]\nPrivateMounts=yes\n" >/run/systemd/system/duolog@2.service.d/hides.conf && systemctl daemon-reload && systemctl start duolog@2'
refused "the mount of a hardened instance is hidden" '' sh -c "$type /var/lib/site/other | grep -q fuse.duolog"
check "the instance ends" sh -c 'systemctl stop duolog@2 && rm -r /run/systemd/system/duolog@2.service.d && systemctl daemon-reload'
phase "the mount is seen"

# --- Units that are no services are refused: when the node starts, or before they count as started. ---
with_unit() {
    node 2 /var/lib/site/other | sed '$a [[service]]\nname = "odd"\nunit = "'"$1"'"' | write /etc/duolog/2/duolog.toml
}
run2="timeout 20 duolog run --config /etc/duolog/2/duolog.toml"
with_unit nothing.service
refused "a unit that there is not" 'systemd has no nothing.service' $run2
with_unit site-late.service
refused "a unit that does not run on" 'site-late.service is of Type=oneshot' $run2
write /etc/systemd/system/site-odd.service <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'echo ran >>/var/lib/site/odd; exec sleep 600'
UNIT
with_unit site-odd.service
write /etc/systemd/system/site-odd.service.d/zzzz.conf <<'UNIT'
[Service]
Restart=always
UNIT
refused "a unit that systemd starts again" 'starts site-odd.service again by itself (Restart=always)' $run2
write /etc/systemd/system/site-odd.service.d/zzzz.conf <<'UNIT'
[Service]
TemporaryFileSystem=/var/lib/site/other
UNIT
refused "a unit that does not see the directory" 'of site-odd.service does not see the replicated directory /var/lib/site/other' $run2
[ -z "$(inside find /sys/fs/cgroup/duolog2.slice -mindepth 1 -type d)" ] || fail "what was refused has a group still"
check "the unit as it is" sh -c 'rm -r /etc/systemd/system/site-odd.service.d /run/systemd/system/site-odd.service.d && systemctl daemon-reload && systemctl start site-odd'
refused "a unit that runs before the node" 'site-odd.service runs already, in /system.slice/site-odd.service' $run2
check "which is left as it is" systemctl is-active site-odd
check "it ends" systemctl stop site-odd
phase "refused"

# --- Stopped in order. ---
begun=$SECONDS
check "the node stops" systemctl stop duolog
[ $((SECONDS - begun)) -lt 10 ] || fail "the stop took $((SECONDS - begun)) s"
is duolog Result success
nothing_left "after a stop"
[ "$(inside tail -n 2 /var/lib/site/order | paste -sd,)" = "app ended,db ended" ] || fail "units were not ended in reverse: $(inside cat /var/lib/site/order)"
is site-db Result success
# Where the node does not serve nobody starts them.
refused "a unit cannot be started where the node does not serve" '' systemctl start site-db
# Of this one systemd says that it began before it has its group.
refused "nor after systemd read its files again" '' sh -c 'systemctl daemon-reload && systemctl daemon-reexec && systemctl start site-app@1; sleep 0.2; systemctl is-active site-app@1'
inside journalctl -q -u site-db --no-pager | grep -q 219/CGROUP || fail "a unit is kept out by something else"
refused "the slice stays" '' systemctl stop duolog1.slice
nothing_left "after units were started by hand"
refused "who began before sees no dead mount" '' sh -c "nsenter -t \$(systemctl show --value -p MainPID early) -m $type $data"
[ "$(shows duolog ControlGroup)" = "" ] || inside sh -c "! grep -q . /sys/fs/cgroup$(shows duolog ControlGroup)/cgroup.procs" || fail "processes are left in the unit's group"
check "again" systemctl start duolog
check "the service was told to end" test -e "$data/ended"
# A service that does not end within the time of the unit: systemd kills all of it.
check "a unit with little time" sh -c 'mkdir -p /run/systemd/system/duolog.service.d && printf "[Service]\nTimeoutStopSec=2\n" >/run/systemd/system/duolog.service.d/short.conf && systemctl daemon-reload'
inside sh -c 'kill -STOP "$(cat /var/lib/site/service)"'
check "a node whose service does not end is ended" systemctl stop duolog
is duolog Result timeout
nothing_left "after a stop by force"
phase "stopped"

# --- Units: fences at any moment of a start. `let-go` is what every fence is. ---
# The door opened as the node opens it, and a start that systemd has accepted; whoever runs after the fence
# says so.
limit=150 check "fences at random moments of a start" bash -c '
    cd /sys/fs/cgroup/duolog1.slice && ran=0 began=0
    for n in $(seq 100); do
        echo max >cgroup.max.depth; echo max >cgroup.max.descendants
        systemctl start --no-block site-db
        sleep "0.$(printf %03d $((RANDOM % 200)))"
        duolog let-go --config /etc/duolog/duolog.toml || exit 1
        [ ! -e /var/lib/site/db-beat ] || began=$((began + 1))
        rm -f /var/lib/site/db-beat
        until [ -z "$(systemctl list-jobs --no-legend site-db.service)" ]; do sleep 0.02; done
        sleep 0.05
        [ ! -e /var/lib/site/db-beat ] || ran=$((ran + 1))
    done
    echo "began $began ran $ran"
    [ $ran = 0 ] && [ $began -gt 5 ] && [ $began -lt 95 ]'
phase "fenced at random moments: $(tail -n 1 "$work/said")"
# The same moment held on to: systemd itself is stopped while a step of the start runs, which ends, and is
# behind the fence when it goes on.
check "a start, and its first slow step" bash -c '
    cd /sys/fs/cgroup/duolog1.slice && echo max >cgroup.max.depth && echo max >cgroup.max.descendants
    rm -f /var/lib/site/db-beat
    systemctl start --no-block site-db
    until grep -qs . site-db.service/cgroup.procs && grep -qx sleep /proc/$(head -n 1 site-db.service/cgroup.procs)/comm; do :; done'
kill -STOP "${first[here]}"
within 5 "its step ends" grep -q "populated 0" /sys/fs/cgroup/duolog1.slice/site-db.service/cgroup.events
check "a fence while systemd hangs between two steps of a start" timeout 5 duolog let-go --config /etc/duolog/duolog.toml
kill -CONT "${first[here]}"
within 10 "systemd gives the start up" bash -c '[ -z "$(systemctl list-jobs --no-legend site-db.service)" ]'
refused "its next step is not run" '' sh -c 'sleep 0.2; test -e /var/lib/site/db-beat'
check "a fence of a start that waits for another unit" bash -c '
    # In vain, so that systemd knows of no group of an earlier start.
    systemctl start site-db
    cd /sys/fs/cgroup/duolog1.slice && echo max >cgroup.max.depth && echo max >cgroup.max.descendants
    rm -f /var/lib/site/db-beat
    systemctl start --no-block site-late site-db
    duolog let-go --config /etc/duolog/duolog.toml || exit 1
    systemctl list-jobs | grep -q site-db || { echo "nothing waits"; exit 1; }
    touch /run/site-late
    until [ -z "$(systemctl list-jobs --no-legend site-db.service)" ]; do sleep 0.02; done
    sleep 0.2
    [ ! -e /var/lib/site/db-beat ] && systemctl show --value -p Result site-db && ! systemctl list-jobs | grep site-db'

# --- Killed, and started again. ---
check "its own times" sh -c 'rm /run/systemd/system/duolog.service.d/short.conf && systemctl daemon-reload'
check "again" systemctl start duolog
old="$(guardian duolog)"
check "the daemon is killed" kill -KILL "$(daemon duolog)"
until_anew duolog "$old"
served || fail "the node does not serve after the death of its daemon"
# A unit that ends is restarted by Duolog, with those after it, and not by systemd.
old="$(shows site-db MainPID) $(shows site-app@1 MainPID)"
check "a unit is killed" kill -KILL "${old% *}"
within 10 "its restart" sh -c "[ \"\$(duolog status --config /etc/duolog/duolog.toml --json | grep -o '\"restarts\": *1' | wc -l)\" = 1 ]"
within 10 "both serve again" sh -c 'systemctl is-active site-db site-app@1'
for old in $old; do refused "those after it are restarted with it" '' kill -0 "$old"; done
is site-db NRestarts 0
served || fail "the node does not serve after a unit was restarted"
# systemd kills all the rest at once, the daemon before it can fence: nobody but ExecStopPost is left.
check "a look before it is started again" sh -c 'printf "[Service]\nRestartSec=4\n" >/run/systemd/system/duolog.service.d/short.conf && systemctl daemon-reload'
old="$(guardian duolog)"
check "the guardian is killed" kill -KILL "$old"
within 10 "its end" sh -c '[ "$(systemctl show --value -p SubState duolog)" = auto-restart ]'
nothing_left "after the death of the guardian"
until_anew duolog "$old"
served || fail "the node does not serve after the death of its guardian"
phase "killed"

# --- The watchdog: a guardian that hangs is ended. ---
check "a short watchdog" sh -c 'printf "[Service]\nWatchdogSec=3\n" >/run/systemd/system/duolog.service.d/short.conf && systemctl daemon-reload && systemctl restart duolog'
old="$(guardian duolog)"
check "the guardian hangs" kill -STOP "$old"
until_anew duolog "$old"
served || fail "the node does not serve after its guardian hung"
inside journalctl -q -u duolog --no-pager | grep -i 'watchdog timeout' >/dev/null || fail "it was not the watchdog"
is duolog NRestarts 1
check "the last stop" systemctl stop duolog
nothing_left "at the end"
phase "watched"

# --- The witness. ---
write /etc/duolog/witness.toml <<'TOML'
listen = "127.0.0.1:7432"
state_dir = "/var/lib/duolog-witness"
[[pair]]
cluster = "00000000000000000000000000000001"
node1_key = "witness1.key"
node2_key = "witness2.key"
TOML
check "its keys" sh -c 'cd /etc/duolog && duolog keygen --pair-key witness1.key && duolog keygen --pair-key witness2.key && chown duolog-witness witness?.key'
check "the witness starts" systemctl start duolog-witness
is duolog-witness SubState running
[ "$(inside ps -o user:20= -p "$(guardian duolog-witness)" | tr -d ' ')" = duolog-witness ] || fail "the witness runs as another user"
old="$(guardian duolog-witness)"
check "the witness is killed" kill -KILL "$old"
until_anew duolog-witness "$old"
check "the witness stops" systemctl stop duolog-witness
is duolog-witness Result success
phase "the witness"

# --- The computer is shut down: the node ends its services in order, and systemd none of them before. ---
check "the last start" systemctl start duolog
served || fail "the node does not serve before the shutdown"
exec 9<"/proc/${first[here]}/root/var/lib/site/order"
inside systemctl --no-block poweroff
gone 1 || fail "the shutdown takes longer than 30 s"
[ "$(tail -n 2 <&9 | paste -sd,)" = "app ended,db ended" ] || fail "at a shutdown units were not ended in order"
checks=$((checks + 2))
phase "shut down"
