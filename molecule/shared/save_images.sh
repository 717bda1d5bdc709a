#!/usr/bin/env bash
# Keeps images of this machine's engine in an archive, unless it holds them already: save_images.sh ARCHIVE IMAGE...
set -euo pipefail

archive=$1
shift
# Scenarios that need the same images start together: the first saves them for all.
exec 9>"$archive.lock"
flock 9
[[ -e $archive && $* == "$(cat "$archive.images" 2>/dev/null)" ]] && exit
new=$(mktemp "$archive.XXXXXX")
trap 'rm -f "$new"' EXIT
docker save --output "$new" "$@"
mv "$new" "$archive"
echo "$*" >"$archive.images"
echo saved
