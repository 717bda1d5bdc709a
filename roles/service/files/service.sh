#!/bin/sh
# What a unit of the role `service` does besides `docker run`. Units that an earlier version wrote call it as well.
set -u

usage="Usage:
  answers NAME URL SECONDS                            wait until a daemon answers, or fail
  lost NAME                                           set a container aside that the engine wrongly calls running, or fail
  final NAME STATUS...                                after a daemon that ended with one of these, stop what is part of it
  turn NAME                                           wait until no other job of this name runs
  room PERCENT FOLDER...                              fail if the disk of a folder is that full
  run NAME INSTANCE COMMAND...                        become a job's command; call it under the job's lock
  ended NAME INSTANCE MEMORY SECONDS [COMMAND...]     clean up after a job; if it failed, say why, also to a command"

# A clock that never jumps, in seconds.
now() { cut --delimiter=. --fields=1 /proc/uptime; }

# The engine may miss that a container's process is gone.
lives() {
  pid=$(docker inspect --format '{{.State.Pid}}' "$1" 2>/dev/null) && test -d "/proc/${pid:-none}"
}

# To stop such a container takes the engine 20 seconds or more. Without its name, addresses and ports it is in nobody's way, and
# systemd starts another when the client is gone.
lost() {
  state=$(docker inspect --format '{{.State.Running}} {{.State.Pid}}' "$1" 2>/dev/null)
  pid=${state#true }
  if [ "$state" != "true $pid" ] || test -d "/proc/$pid"; then return 1; fi
  for network in $(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$1"); do
    docker network disconnect --force "$network" "$1"
  done
  docker rename "$1" "$1-lost-$pid"
  systemctl kill --signal=KILL "$1"
  docker rm --force "$1-lost-$pid" >/dev/null 2>&1 &
}

# What ended will never answer: neither a container that was there, nor the unit's main process, its client. Without a container,
# what answers is something else that holds the port.
answers() {
  end=$(($(now) + $3)) born=
  until curl --silent --fail --output /dev/null --max-time "$3" "$2" && lives "$1"; do
    if lives "$1"; then
      born=yes
    elif [ "$born" ] || ! test -d "/proc/${MAINPID:-self}"; then
      echo "$1 ended before it answered at $2"
      lost "$1"
      return 1
    fi
    if [ "$(now)" -ge "$end" ]; then
      echo "$1 did not answer at $2 within $3 s"
      return 1
    fi
    sleep 0.5
  done
}

final() {
  name=$1
  shift
  for status; do
    if [ "${EXIT_STATUS:-}" = "$status" ]; then
      echo "$name ended with $status and is not started again; nor is what needs it"
      # shellcheck disable=SC2046
      systemctl stop --no-block $(systemctl show --property=ConsistsOf --value "$name")
    fi
  done
}

turn() {
  flock --nonblock "/run/$1.lock" true && return
  echo "waiting until $(cat "/run/$1.lock") has ended"
  flock "/run/$1.lock" true
}

room() {
  percent=$1
  shift
  for folder; do
    used=$(df --output=pcent "$folder" | tr --delete --complement 0-9)
    if [ "${used:-0}" -ge "$percent" ]; then
      echo "Expected the disk of $folder to be less than $percent % full; got $used %."
      echo "Make room: playbooks/gc.yml shows what MLflow could do without, du -xhd2 $folder what is large."
      return 1
    fi
  done
}

# Under the lock, which docker then holds, no other container of these jobs has anything left to do.
run() {
  name=$1 instance=$2
  shift 2
  echo "$name@$instance" >"/run/$name.lock"
  docker ps --all --quiet --filter "name=^/$name-" | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1
  exec "$@"
}

# Systemd tells in SERVICE_RESULT and EXIT_STATUS how the job ended.
ended() {
  name=$1 instance=$2 memory=$3 seconds=$4
  shift 4
  status=${EXIT_STATUS:-}
  case "$SERVICE_RESULT $status" in
    timeout*) why="over its time limit of $seconds s" ;;
    *137 | *KILL) why="killed from outside" ;;
    *) why="$SERVICE_RESULT${status:+, exit status $status}" ;;
  esac
  if docker inspect --format '{{.State.OOMKilled}}' "$name-$instance" 2>/dev/null | grep --quiet true; then
    why="over its memory limit of $memory"
  fi
  docker rm --force "$name-$instance" >/dev/null 2>&1
  if [ "$SERVICE_RESULT" != success ]; then
    echo "$name@$instance failed: $why"
    if [ $# -gt 0 ]; then exec "$@" "$why"; fi
  fi
}

case "${1:-}" in
  answers | lost | final | turn | room | run | ended) "$@" ;;
  *) echo "$usage" >&2 && exit 2 ;;
esac
