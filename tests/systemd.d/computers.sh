# Computers for tests/systemd, each with a systemd of its own, and looks from within them. Needs `work`, a
# directory, with the package in it; leaves nothing of what is made here when the process ends.

checks=0
# The one that is looked at; what made the namespaces of each, and its first process, systemd.
here=1
booted=()
first=()
group=""
mkdir "$work/cgroup"
clean_up() {
    set +e
    for process in "${booted[@]}" "${beside[@]}"; do
        kill -KILL "$process"
        wait "$process"
    done 2>/dev/null
    if [ -n "$group" ]; then
        # Who was killed takes a moment to be gone from its group.
        for _ in $(seq 100); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$group" ] || break
            sleep 0.05
        done
    fi
    umount "$work/cgroup" 2>/dev/null
    rm -rf --one-file-system "$work"
}
# What else is ended then.
beside=()
trap clean_up EXIT
mount -t cgroup2 cgroup2 "$work/cgroup" || cannot "cgroup2 cannot be mounted"
group="$work/cgroup/duolog-test-$$"
mkdir "$group" || cannot "there may be no control group of its own here"

# boot N: switches a computer on; what it begins with is this machine's files and the package at /duolog.deb.
boot() {
    mkdir -p "$work/$1/layer" "$group/$1"
    # In that group first, so that it is the root of what systemd sees.
    bash -c 'echo $$ >"$1/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --mount-proc --cgroup \
        --uts --ipc --net tests/systemd.d/root "$2" "$3"' boot "$group/$1" "$work/$1/layer" "$work"/duolog_*.deb \
        >"$work/$1/boot" 2>&1 </dev/null &
    booted[$1]=$!
    first[$1]="$(first_below "$!")" || { cat "$work/$1/boot" >&2; exit 1; }
}
# gone N: it comes to its end by itself.
gone() {
    for _ in $(seq 300); do
        kill -0 "${booted[$1]}" 2>/dev/null || { unset "booted[$1]" "first[$1]"; return; }
        sleep 0.1
    done
    return 1
}
# The first process of the namespaces that a process makes.
first_below() {
    local child
    for _ in $(seq 100); do
        child="$(cat "/proc/$1/task/$1/children" 2>/dev/null | tr -d ' ')"
        [ -z "$child" ] || { echo "$child"; return; }
        sleep 0.1
    done
    return 1
}
# on N COMMAND...: one of these functions, at that computer.
on() {
    local here="$1"
    shift
    "$@"
}
inside() { nsenter -t "${first[here]}" -m -u -i -n -p -C env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
fail() {
    echo "tests/systemd: $*" >&2
    for here in "${!first[@]}"; do
        inside timeout 5 systemctl status --no-pager -n 5 'duolog*' >&2 || true
        inside timeout 5 journalctl --no-pager -q -n 40 >&2 || true
    done
    exit 1
}
# check WHAT COMMAND...: it succeeds, inside.
check() {
    local what="$1"
    shift
    inside timeout "${limit:-60}" "$@" >"$work/said" 2>&1 || {
        cat "$work/said" >&2
        fail "$what"
    }
    checks=$((checks + 1))
}
# refused WHAT WORDS COMMAND...: it fails, and says the words.
refused() {
    local what="$1" words="$2"
    shift 2
    if inside timeout 60 "$@" >"$work/said" 2>&1; then fail "$what"; fi
    [ -z "$words" ] || grep -q "$words" "$work/said" || { cat "$work/said" >&2; fail "$what: it does not say: $words"; }
    checks=$((checks + 1))
}
# within SECONDS WHAT COMMAND...: it succeeds before they are over.
within() {
    local until=$((SECONDS + $1)) what="$2"
    shift 2
    until inside timeout 20 "$@" >"$work/said" 2>&1; do
        [ $SECONDS -lt $until ] || { cat "$work/said" >&2; fail "not in time: $what"; }
        sleep 0.1
    done
    checks=$((checks + 1))
}
shows() { inside systemctl show --value -p "$2" "$1"; }
is() {
    [ "$(shows "$1" "$2")" = "$3" ] || fail "$1: $2 is $(shows "$1" "$2"), not $3"
    checks=$((checks + 1))
}
phase() { echo "$SECONDS s: $*"; }
# The guardian, and the daemon below it.
guardian() { shows "$1" MainPID; }
daemon() { inside pgrep -P "$(guardian "$1")" -f -- --guarded; }
# Another one of them than before, which serves.
serves_anew() {
    local unit="$1" old="$2"
    [ "$(guardian "$unit")" != "$old" ] && [ "$(shows "$unit" SubState)" = running ]
}
until_anew() {
    local unit="$1" old="$2" until=$((SECONDS + 20))
    until serves_anew "$unit" "$old"; do
        [ $SECONDS -lt $until ] || fail "$unit does not come back"
        sleep 0.1
    done
    checks=$((checks + 1))
}
write() { inside sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1" && case "$1" in *bin/*) chmod 755 "$1" ;; esac' sh "$1"; }
# is_up: systemd runs, and everything that it started.
is_up() {
    within 30 "systemd starts" systemctl is-system-running --wait
    [ "$(cat "$work/said")" = running ] || { inside systemctl --failed >&2; fail "systemd is $(cat "$work/said")"; }
}
