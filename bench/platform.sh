#!/usr/bin/env bash
# Times the platform in the sandbox and weighs its services. The sandbox should be up; see bench/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly RUNS=${1:-3}
export PATH=$PWD/.venv/bin:$PATH

# median COMMAND...: the median of RUNS wall times, in seconds.
median() {
  local start
  for _ in $(seq "$RUNS"); do
    start=$EPOCHREALTIME
    "$@" >/dev/null
    echo "$EPOCHREALTIME $start"
  done | awk '{ print $1 - $2 }' | sort -n | awk '{ all[NR] = $1 } END { printf "%.1f", all[int((NR + 1) / 2)] }'
}

row() { printf '| %s | %s |\n' "$1" "$2"; }

play=(ansible-playbook -i inventory/sandbox)
row what "median of $RUNS"
row --- ---
row 'make sandbox, on an unchanged sandbox' "$(median make sandbox) s"
row 'site.yml, unchanged' "$(median "${play[@]}" site.yml) s"
row 'playbooks/configure.yml, unchanged' "$(median "${play[@]}" playbooks/configure.yml) s"
row 'playbooks/verify.yml' "$(median "${play[@]}" playbooks/verify.yml) s"
mlflow=$(bench/memory.sh mlflow) streamlit=$(bench/memory.sh streamlit)
row 'MLflow, memory (PSS)' "$mlflow MiB"
row 'the app, memory (PSS)' "$streamlit MiB"
row 'both' "$((mlflow + streamlit)) MiB"
