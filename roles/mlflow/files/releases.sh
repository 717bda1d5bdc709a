#!/bin/bash
# Keeps of the release that an upgrade comes from what a way back needs besides the database:
#   releases.sh COMMAND FOLDER UNIT SETTINGS NOTE WINDOW [ARGUMENT...]
#
#   look                  nothing but what all do at the end: print as JSON what the server last ran on (NOTE), and the releases in FOLDER
#   keep SCHEMA           keep UNIT, SETTINGS with its secrets, and NOTE as `switching`, unless a run that was interrupted did
#   window SECONDS        let the unit's start take that long at most (WINDOW)
#   back RELEASE          put a release's files back
#   done                  what is kept as `switching` is from now on the `previous` release
#   forget RELEASE        remove a release
#
# SETTINGS.secrets belongs to SETTINGS. All but `look` and `keep` end the window.
set -euo pipefail
command=$1 folder=$2 unit=$3 settings=$4 note=$5 window=$6
shift 6
# A release's files, by their name in it.
declare -A files=([unit]=$unit [settings]=$settings [secrets]=$settings.secrets [note]=$note)

first_line() { if [[ -f $1 ]]; then head --lines 1 "$1"; fi; }

look() {
  printf '{"ran_on": "%s"' "$(first_line "$note")"
  for name in switching previous; do
    if ! [[ -d $folder/$name ]]; then continue; fi
    image=$(grep --only-matching --no-messages --max-count 1 'mlstack/mlflow:[0-9A-Za-z_.-][0-9A-Za-z_.-]*' "$folder/$name/unit" || true)
    printf ', "%s": {"ran_on": "%s", "schema": "%s", "image": "%s"}' \
      "$name" "$(first_line "$folder/$name/note")" "$(first_line "$folder/$name/schema")" "$image"
  done
  echo '}'
}

# Whole or not at all.
keep() {
  if [[ -d $folder/switching ]]; then return; fi
  rm --recursive --force "$folder/part"
  install --directory --mode 0700 "$folder" "$folder/part"
  echo "$1" >"$folder/part/schema"
  for name in "${!files[@]}"; do
    if [[ -f ${files[$name]} ]]; then cp --preserve "${files[$name]}" "$folder/part/$name"; fi
  done
  mv "$folder/part" "$folder/switching"
}

open_window() {
  install --directory "$(dirname "$window")"
  printf '[Service]\nTimeoutStartSec=%s\n' "$1" >"$window"
}

close_window() { rm --force "$window"; }

back() {
  close_window
  for name in "${!files[@]}"; do
    if [[ -f $folder/$1/$name ]]; then
      cp --preserve "$folder/$1/$name" "${files[$name]}"
    else
      rm --force "${files[$name]}"
    fi
  done
}

forget() {
  close_window
  rm --recursive --force "${folder:?}/${1:?}"
}

finish() {
  forget previous
  mv "$folder/switching" "$folder/previous"
}

case $command in
  look) ;;
  keep | back | forget) "$command" "$@" ;;
  window) open_window "$@" ;;
  done) finish ;;
  *) echo "Expected look, keep, window, back, done or forget; got $command." >&2 && exit 2 ;;
esac
look
