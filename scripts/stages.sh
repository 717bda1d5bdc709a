#!/usr/bin/env bash
# Runs make targets one after the other and ends with how long each took: scripts/stages.sh TARGET...
# Stops at the first that fails, or goes on to the end under `make -k`.
set -euo pipefail
MAKEFLAGS=${MAKEFLAGS:-}

minutes() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

summary=() status=0 start=$SECONDS
for stage in "$@"; do
  printf '\n=== %s\n' "$stage"
  began=$SECONDS result=ok
  make "$stage" </dev/null || result=FAILED status=1
  summary+=("$(printf '%-16s %-7s %7s' "$stage" "$result" "$(minutes $((SECONDS - began)))")")
  [[ $result == ok || ${MAKEFLAGS%% *} =~ ^[a-z]*k ]] || break
done

printf '\n=== summary\n'
printf '%s\n' "${summary[@]}" "$(printf '%-16s %-7s %7s' total '' "$(minutes $((SECONDS - start)))")"
exit $status
