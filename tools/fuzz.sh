#!/usr/bin/env bash
# Runs every fuzz target of the module for the time given: tools/fuzz.sh 10m [package...]
#
# The go command before 1.27 can end a target with a bare "context deadline exceeded" when its time is up
# while the machine is busy (golang/go#75804): its coordinator sees its own deadline before its workers do.
# Such an end wrote no failing input and names no seed; the target runs again, and thrice so is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long for each target, such as 3s or 10m}
shift
go=${GO:-go}
[ $# -gt 0 ] || set -- $(grep -lr --include='*_test.go' '^func Fuzz' . | grep -v '^./\.' | xargs -n1 dirname | sort -u)
targets=0
fuzz() { "$go" test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -parallel "${PARALLEL:-2}" 2>&1; }
late() { grep -qx '    context deadline exceeded' <<<"$1" && ! grep -qE 'Failing input|panic|seed#|_test\.go:' <<<"$1"; }
for package in "$@"; do
	for target in $(grep -h '^func Fuzz' "$package"/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
		printf '%-24s %-32s ' "$package" "$target"
		for try in 1 2 3; do
			if out=$(fuzz "$package" "$target"); then
				printf '%s\n' "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -n 1)"
				break
			fi
			if [ $try = 3 ] || ! late "$out"; then
				printf 'FAILED\n%s\n' "$out"
				exit 1
			fi
		done
		targets=$((targets + 1))
	done
done
echo "$targets fuzz targets, $time each, no finding"
