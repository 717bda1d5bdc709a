#!/usr/bin/env bash
# Runs Molecule scenarios, two at a time: they wait more than they compute. Each one's output goes to a log.
# Usage: scripts/molecule.sh [SCENARIO...]; without names every one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOGS=.cache/molecule/logs AT_ONCE=2
# The longest first, so that none is left over at the end.
readonly LONGEST=(default workers server)

scenario() {
  local name=$1 start=$SECONDS
  if molecule test -s "$name" >"$LOGS/$name.log" 2>&1 </dev/null; then
    printf 'molecule: %-12s passed in %dm%02ds\n' "$name" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
  else
    tail -n 150 "$LOGS/$name.log"
    printf 'molecule: %-12s FAILED; the whole log: %s\n' "$name" "$LOGS/$name.log"
    return 1
  fi
}

mkdir -p "$LOGS"
# What all of them share, images and the SSH key, is made once before two could make it at the same time.
molecule create -s service >"$LOGS/create.log" 2>&1 </dev/null || { cat "$LOGS/create.log" && exit 1; }

export -f scenario
export LOGS
mapfile -t others < <(find molecule -name molecule.yml -printf '%h\n' | xargs -n 1 basename | sort |
  grep -vxF "$(printf '%s\n' "${LONGEST[@]}")")
(($#)) || set -- "${LONGEST[@]}" "${others[@]}"
printf '%s\n' "$@" | xargs -P "$AT_ONCE" -I '{}' bash -euo pipefail -c 'scenario {}'
