# figures_common.sh: read by figures.sh, peer_quality.sh and peer_speed.sh. A library of the run's own, in $home, which goes with it.
# Environment: VALISE (the command), THREADS (2).
valise=${VALISE:-build/app/cli/valise} threads=${THREADS:-2}
home=$(mktemp -d) && trap 'rm -rf "$home"' EXIT INT TERM
export VALISE_HOME="$home/library"

get () { python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }
row () { printf '%-52s %s\n' "$1" "$2"; }
ratio () { python3 -c 'import sys; print(f"{float(sys.argv[1]) / float(sys.argv[2]):.3f}")' "$1" "$2"; }
