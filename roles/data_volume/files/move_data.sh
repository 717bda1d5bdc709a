#!/usr/bin/env bash
# Moves a folder's content onto an empty volume; the folder itself is kept in the same place under a dated name.
# Prints that name, then the units that were stopped, one per line. If anything fails, the folder is unchanged and
# the units run again.
# usage: bash -s -- DEVICE FOLDER
set -euo pipefail
device=$1 folder=$2
aside=$folder.before-data-volume-$(date +%Y%m%d-%H%M%S)
volume=$(mktemp --directory)
# A hidden name on the volume, so that an interrupted copy cannot be mistaken for the data.
copy=$volume/.copy-under-way
units=()

give_back() {
  status=$?
  if mountpoint --quiet "$volume"; then
    ((status == 0)) || rm --recursive --force "$copy"
    umount "$volume"
  fi
  rmdir "$volume"
  if ((status != 0 && ${#units[@]})); then systemctl start "${units[@]}"; fi
}
trap give_back EXIT

fail() {
  echo "$1" >&2
  exit 1
}

below=$(findmnt --list --noheadings --output TARGET | awk -v folder="$folder/" 'index($0, folder) == 1')
if [[ $below ]]; then fail "The folder $folder cannot be moved while something is mounted below it. Unmount: ${below//$'\n'/, }"; fi
mount "$device" "$volume"
rm --recursive --force "$copy"
others=$(find "$volume" -mindepth 1 -maxdepth 1 ! -name lost+found -printf '%f ')
if [[ $others ]]; then
  fail "Both hold data: the folder $folder on the root disk, and the volume $device ($others). Nothing was changed.
To continue with the volume's data, move the folder out of the way: sudo mv $folder $folder.old
To continue with the folder's data, empty the volume: sudo mount $device /mnt, save and remove its content, sudo umount /mnt"
fi
needed=$(du --summarize --block-size=1M "$folder" | cut --fields=1)
free=$(df --block-size=1M --output=avail "$volume" | tail --lines=1)
if ((needed >= free)); then
  fail "The folder $folder holds $needed MiB, but the volume $device has room for $((free)) MiB. Enlarge the volume."
fi

# Units that refer to the folder write into it; those of a template are its instances.
while read -r file; do
  name=$(basename "$file")
  while read -r unit _; do units+=("$unit"); done \
    < <(systemctl list-units --full --plain --no-legend --state=active,activating "${name/@./@*.}")
done < <(grep --files-with-matches --fixed-strings -- "$folder" /etc/systemd/system/*.service)
if ((${#units[@]})); then systemctl stop "${units[@]}"; fi

cp --archive "$folder" "$copy"
diff --recursive --no-dereference "$folder" "$copy" >&2 || fail "The copy of $folder differs, as shown above."
# The volume first: if both hold data, the next run asks; if neither did, it would start over.
find "$copy" -mindepth 1 -maxdepth 1 -exec mv --target-directory="$volume" {} +
chown --reference="$folder" "$volume"
chmod --reference="$folder" "$volume"
rmdir "$copy"
sync --file-system "$volume"
mv "$folder" "$aside"
printf '%s\n' "$aside" "${units[@]}"
