#!/bin/sh
# Prints what is on the host already, a line each: look.sh DOCKER NETWORK BASE_IMAGE
set -u
docker=$1 network=$2 base_image=$3

if "$docker" info >/dev/null 2>&1 && command -v curl >/dev/null; then echo engine; fi
if "$docker" network inspect "$network" >/dev/null 2>&1; then echo network; fi
if "$docker" image inspect "$base_image" >/dev/null 2>&1; then echo base_image; fi
if systemctl is-enabled --quiet docker 2>/dev/null; then echo enabled; fi
if [ -e /etc/docker/daemon.json ]; then echo "daemon $(base64 --wrap=0 /etc/docker/daemon.json)"; fi
