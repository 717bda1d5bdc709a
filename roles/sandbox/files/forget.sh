#!/bin/bash
# Lets HOST forget MLflow's runs if EMULATOR has started anew since they were logged: forget.sh EMULATOR HOST
set -euo pipefail
emulator=$1 host=$2

now=$(docker inspect --format '{{.State.StartedAt}}' "$emulator")
docker exec --interactive "$host" bash -seu "$now" <<'HOST'
  marker=/var/lib/mlstack/emulator-started-at
  if [ -e "$marker" ] && [ "$(cat "$marker")" != "$1" ]; then
    # A container that was made anew has no unit yet.
    for unit in mlflow replication; do
      if systemctl cat "$unit.service" >/dev/null 2>&1; then systemctl stop "$unit.service"; fi
    done
    rm -rf /var/lib/mlstack/mlflow
    echo forgotten
  fi
  echo "$1" > "$marker"
HOST
