#!/usr/bin/env bash
# Prints the memory of a service in the sandbox, in MiB: bench/memory.sh CONTAINER
# Shared pages are counted once (PSS), over all processes of the container.
set -euo pipefail

# shellcheck disable=SC2016 # the host's shell expands these
docker exec mlstack-sandbox sh -c '
  for pid in $(docker top "$1" -eo pid | tail -n +2); do cat "/proc/$pid/smaps_rollup"; done' sh "$1" |
  awk '/^Pss:/ { sum += $2 } END { printf "%.0f\n", sum / 1024 }'
