#!/bin/bash
# Prints the first Docker client here that can build with BuildKit. From version 23 on it needs the plug-in buildx for that;
# the distribution's own client may stand behind one that lacks it.
set -uo pipefail

for client in docker /usr/bin/docker; do
  version=$("$client" version --format '{{.Client.Version}}') || continue
  if ((${version%%.*} < 23)) || "$client" buildx version >/dev/null 2>&1; then
    echo "$client"
    exit
  fi
done
echo "No Docker client here can build with BuildKit: install the plug-in buildx (Debian: docker-buildx)." >&2
exit 1
