#!/usr/bin/env bash
# Runs make targets, several at a time, and ends with a table of them: scripts/jobs.sh SETUP TARGET...
# SETUP runs before the others. Each one's output goes to a log, whose end is shown if it fails.
# After a failure no more targets are started; under `make -k` all of them are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One more than there are processors, because jobs wait for hosts and services half of their time.
readonly LOGS=.cache/jobs AT_ONCE=${AT_ONCE:-$(($(nproc) + 1))}

# row TARGET RESULT SECONDS NOTE
row() { printf '%-22s %-8s %4dm%02ds   %s\n' "$1" "$2" $(($3 / 60)) $(($3 % 60)) "$4"; }

# Adds up the closing lines of the runs of pytest in a log.
tests() {
  grep -E '[0-9]+ (passed|failed|error).* in [0-9.]+s' "$1" | grep -oE '[0-9]+ (passed|failed|error)' |
    awk '{ sum[$2] += $1 } END { for (what in sum) { printf "%s%d %s", comma, sum[what], what; comma = ", " } }' || true
}

# The recipe of job-TARGET. Its make is one of its own, with which the other jobs have nothing to do.
run_one() {
  local target=$1 log=$LOGS/$1.log result=passed
  env --unset=MAKEFLAGS --unset=MAKELEVEL make "$target" >"$log" 2>&1 </dev/null || result=FAILED
  row "$target" $result $SECONDS "$(tests "$log")" | tee "$LOGS/$target.row"
  [[ $result == passed ]]
}

run_all() {
  local setup=$1 others=("${@:2}") rows=("${@/#/$LOGS/}") target status=0
  mkdir -p "$LOGS"
  rm -f "$LOGS"/*.row
  { make "job-$setup" && make --jobs="$AT_ONCE" "${others[@]/#/job-}"; } || status=1

  for target in "$@"; do
    [[ -e $LOGS/$target.row ]] || row "$target" skipped 0 '' >"$LOGS/$target.row"
    grep -q FAILED "$LOGS/$target.row" || continue
    printf '\n=== the end of %s\n' "$LOGS/$target.log"
    tail -n 150 "$LOGS/$target.log"
  done

  rows=("${rows[@]/%/.row}")
  printf '\n=== summary\n'
  cat "${rows[@]}"
  row total '' $SECONDS ''
  # Continuous integration reads this line.
  awk '{ n[$2]++ } END { printf "jobs: %d passed, %d failed, %d skipped\n", n["passed"], n["FAILED"], n["skipped"] }' "${rows[@]}"
  return $status
}

case $1 in
  --one) run_one "$2" ;;
  *) run_all "$@" ;;
esac
