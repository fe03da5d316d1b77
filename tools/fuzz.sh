#!/usr/bin/env bash
# Runs every fuzz target of the module for the time given: tools/fuzz.sh 10m [package...]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long for each target, such as 3s or 10m}
shift
go=${GO:-go}
[ $# -gt 0 ] || set -- $(grep -lr --include='*_test.go' '^func Fuzz' . | grep -v '^./\.' | xargs -n1 dirname | sort -u)
targets=0
for package in "$@"; do
	for target in $(grep -h '^func Fuzz' "$package"/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
		printf '%-24s %-32s ' "$package" "$target"
		if out=$("$go" test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel "${PARALLEL:-2}" 2>&1); then
			printf '%s\n' "$(printf '%s' "$out" | grep -o 'execs: [0-9]*' | tail -n 1)"
		else
			printf 'FAILED\n%s\n' "$out"
			exit 1
		fi
		targets=$((targets + 1))
	done
done
echo "$targets fuzz targets, $time each, no finding"
