#!/usr/bin/env bash
# Compiles requirements/*.in to hashed locks: scripts/lock.sh [--upgrade]
# Versions stay the same unless an .in file requires others; --upgrade takes the newest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"

uv=$(../scripts/setup.sh uv)
[[ $uv == /* ]] || uv=../$uv
options=(--quiet --universal --python-version 3.12 --generate-hashes
  --no-header --no-emit-index-url --no-emit-find-links "$@")

# lock NAME EARLIER...: uses the versions of earlier locks, so that server, trainer and app agree.
lock() {
  local name=$1
  shift
  "$uv" pip compile "${options[@]}" "${@/#/--constraints=}" "$name.in" -o "$name.txt"
  echo "requirements/$name.txt"
}

lock uv
lock mlflow
# Other versions of the server (mlflow_version): a new lock starts from the pins above, so that all else stays the same.
for input in mlflow-*.in; do
  [[ -f ${input%.in}.txt ]] || cp mlflow.txt "${input%.in}.txt"
  lock "${input%.in}"
done
lock shared mlflow.txt
lock streamlit mlflow.txt
lock trainer mlflow.txt streamlit.txt
lock scoring mlflow.txt streamlit.txt trainer.txt
lock replication mlflow.txt
lock health mlflow.txt
lock emulator mlflow.txt
lock control
lock dev {mlflow,streamlit,trainer,scoring,replication,health,emulator,control}.txt
