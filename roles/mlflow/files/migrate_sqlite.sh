#!/bin/sh
# Runs in the MLflow image: migrate_sqlite.sh COPY. A migration of SQLite is not transactional, so a copy stays: the first,
# of before a migration that had to be repeated.
set -eu
copy=$1

if [ -s /data/mlflow.db ] && [ ! -e "$copy" ]; then
  python3 -c 'import sqlite3, sys; sqlite3.connect("/data/mlflow.db").execute("vacuum into ?", sys.argv[1:])' "$copy"
fi
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
python3 -c 'import sqlite3; sqlite3.connect("/data/mlflow.db").execute("pragma journal_mode=wal")'
