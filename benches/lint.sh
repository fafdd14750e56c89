#!/bin/bash
# Compares pgweir lint with Debian's pgBadger on one stderr log: CPU seconds and peak memory, runs interleaved, medians.
# usage: benches/lint.sh [LOG]     without LOG a log of MEGABYTES (300) is written to $TMPDIR
# PGWEIR names a binary that is built already. RUNS (3) runs of pgweir for each of pgBadger's; PGBADGER_RUNS (1), since one takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
megabytes=${MEGABYTES:-300}
runs=${RUNS:-3}
badger_runs=${PGBADGER_RUNS:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=${1:-}
if [ -z "$log" ]; then
    log=${TMPDIR:-/tmp}/pgweir-bench-$megabytes.log
    [ -s "$log" ] || { echo "writing $log"; python3 benches/lint_log.py "$megabytes" "$log"; }
fi
pgweir=${PGWEIR:-}
if [ -z "$pgweir" ]; then
    cargo build --release --quiet --bin pgweir
    pgweir=${CARGO_TARGET_DIR:-target}/release/pgweir
fi

# measure NAME COMMAND...: appends "cpu-seconds peak-KiB wall-seconds" to NAME
measure() {
    local name=$1 code=0
    shift
    python3 - "$work/$name" "$@" <<'PY' || code=$?
import os, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "a") as out:
    out.write(f"{used.ru_utime + used.ru_stime:.3f} {used.ru_maxrss} {time.monotonic() - start:.3f}\n")
sys.exit(code if code > 1 else 0)
PY
    return "$code"
}

cat "$log" >/dev/null
prefix='%m [%p] %u@%d '
for run in $(seq "$runs"); do
    measure pgweir "$pgweir" lint --fail-on never --format json "$log"
    if [ "$run" -le "$badger_runs" ] && command -v pgbadger >/dev/null; then
        measure pgbadger pgbadger -q -f stderr -p "$prefix" -o "$work/out.json" "$log"
    fi
done
python3 - "$work" "$log" <<'PY'
import os, statistics, sys
work, log = sys.argv[1:]
megabytes = os.path.getsize(log) / 1e6
medians = {}
for name in ("pgweir", "pgbadger"):
    path = os.path.join(work, name)
    if not os.path.exists(path):
        continue
    rows = [[float(word) for word in line.split()] for line in open(path)]
    cpu, memory, wall = (statistics.median(column) for column in zip(*rows))
    medians[name] = cpu
    print(f"{name:9} {cpu:8.2f} CPU s  {wall:8.2f} s  {megabytes / cpu:7.1f} MB per CPU s  {memory / 1024:7.1f} MiB  ({len(rows)} runs, {megabytes:.0f} MB)")
if len(medians) == 2:
    print(f"ratio     {medians['pgbadger'] / medians['pgweir']:.1f} times pgBadger's speed in CPU seconds")
PY
