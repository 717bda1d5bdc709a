#!/bin/bash
# Makes our base image from Debian's packages: make_base.sh DOCKER SUITE NAME PACKAGE,PACKAGE...
set -euo pipefail
docker=$1 suite=$2 name=$3 packages=$4

# Documentation and translations are never read inside a container.
without=()
for folder in doc info lintian locale man; do
  without+=("--dpkgopt=path-exclude=/usr/share/$folder/*")
done
mmdebstrap --quiet --variant=minbase --include="$packages" "${without[@]}" "$suite" - </dev/null | "$docker" import - "$name"
