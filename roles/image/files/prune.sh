#!/bin/bash
# Removes all images of a name but the one that is wanted and the newest KEEP - 1: prune.sh DOCKER NAME WANTED KEEP
set -euo pipefail
docker=$1 name=$2 wanted=$3 keep=$4

# The image that is wanted may be an old one that came back, so it does not go by its age.
wanted=$("$docker" image ls --quiet "$wanted")
"$docker" image ls --quiet --filter "label=mlstack.image=$name" |
  awk -v wanted="$wanted" '$0 != wanted && !seen[$0]++' |
  tail --lines "+$keep" | xargs --no-run-if-empty "$docker" image rm
