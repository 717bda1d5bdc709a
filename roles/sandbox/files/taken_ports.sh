#!/bin/bash
# Prints those of the ports on which something listens that is not one of the containers: taken_ports.sh CONTAINERS PORT...
set -euo pipefail
containers=$1
shift

# `docker ps` would write neighbours as a range, 8501-8502.
own=$(for name in $containers; do docker port "$name" 2>/dev/null || true; done)
for port in "$@"; do
  if ! grep -q "127.0.0.1:$port$" <<<"$own" && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; fi
done
