#!/bin/bash
# Pulls an official image and adds the PACKAGES that our base has, as it has no Python: pull_base.sh DOCKER UPSTREAM NAME PACKAGE...
set -euo pipefail
docker=$1 upstream=$2 name=$3
shift 3

timeout 300 "$docker" pull --quiet "$upstream" </dev/null
"$docker" build --quiet --tag "$name" - <<DOCKERFILE
FROM $upstream
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends $* \\
 && rm -rf /var/lib/apt/lists/*
DOCKERFILE
