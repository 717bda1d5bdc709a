#!/usr/bin/env bash
# Installs on this machine what the project needs and what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV_MINIMUM=0.9.0 STAMP=.venv/mlstack-stamp LOG=.cache/setup.log DOCKERD_LOG=/var/log/dockerd.log
readonly WAIT_SECONDS=90
# Debian keeps dockerd in sbin, which is not on every PATH; .venv must not be built from itself.
PATH="${PATH//"$PWD/.venv/bin:"/}:/usr/local/sbin:/usr/sbin:/sbin"

usage() {
  cat <<'HELP'
Usage: scripts/setup.sh STEP...

  control     .venv with what ansible-playbook needs (requirements/control.txt)
  dev         .venv with everything: tests, linters, MLflow, Streamlit (requirements/dev.txt)
  ssh         an SSH client
  sshd        an SSH server, which tests start; its unit stays off
  postgresql  PostgreSQL's programs, which tests start; no server runs
  monitors    promtool and Prometheus' node exporter in .cache/monitors, which tests ask; nothing is installed
  engine      a running Docker engine; on Debian and Ubuntu it is installed and started
  browser     Chromium for the page tests
  uv          prints the path of uv, which is downloaded if missing

A step that is already done prints nothing and takes no time. `sudo` is used only where root is required.
HELP
}

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  printf 'setup: error: %s\n' "$1" >&2
  shift
  if (($#)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }
as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
may_be_root() { ((EUID == 0)) || { has sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; }; }
is_debian() { has apt-get && grep -qsE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

# --- apt ---------------------------------------------------------------------------------------------------

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$LOG" 2>&1
}

apt_updated=false
apt_update() {
  $apt_updated && return
  : >"$LOG"
  apt update || true # one unreachable source must not stop the rest; a missing package fails below
  apt_updated=true
}

apt_knows() { apt-cache show "$1" >/dev/null 2>&1; }

can_apt() { is_debian && may_be_root; }

# apt_install WHAT PACKAGE...
apt_install() {
  local what=$1
  shift
  is_debian || die "$what is missing, and this is not Debian or Ubuntu. Install it yourself and try again."
  may_be_root || die "$what is missing, and installing it requires root. Type:" "sudo apt-get install $*"
  say "installing $*"
  apt_update
  apt install -y --no-install-recommends "$@" || {
    tail -n 20 "$LOG" >&2
    die "apt-get could not install $* (full log: $LOG)"
  }
}

# --- Python, uv and the venv -------------------------------------------------------------------------------

PYTHON='' UV=''

# Sets PYTHON to the first Python >= 3.12 found. pyenv's shims obey .python-version.
find_python() {
  local name
  for name in python3.13 python3.12 python3; do
    PYTHON=$("$name" -c 'import sys; print(sys.executable) if sys.version_info >= (3, 12) else sys.exit(1)' \
      2>/dev/null) && return
  done
  PYTHON=''
  return 1
}

# Debian 13 and Ubuntu 24.04 package a recent enough Python; older releases do not.
apt_python() {
  local candidate
  can_apt || return 1
  apt_update
  candidate=$(apt-cache policy python3 | sed -n 's/^ *Candidate: *//p')
  dpkg --compare-versions "${candidate/(none)/0}" ge 3.12 || return 1
  apt_install 'Python >= 3.12' python3 python3-venv
  find_python
}

fetch_python() {
  say "downloading Python $(<.python-version) with uv"
  "$UV" python install --quiet "$(<.python-version)" 2>>"$LOG" &&
    PYTHON=$("$UV" python find "$(<.python-version)" 2>>"$LOG") && return
  tail -n 5 "$LOG" >&2
  die 'expected Python >= 3.12; found none on PATH (python3.13, python3.12, python3), in apt, or through uv.' \
    "Install one and try again, for example: pyenv install $(<.python-version)"
}

uv_fits() {
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  version=$(cut -d' ' -f2 <<<"$version")
  [[ $(printf '%s\n' "$UV_MINIMUM" "$version" | sort -V | head -n 1) == "$UV_MINIMUM" ]]
}

# Sets UV: the user's own if recent enough, otherwise one from a hashed lock.
find_uv() {
  local python
  for UV in uv .cache/uv/bin/uv; do uv_fits "$UV" && return; done
  say 'downloading uv'
  for python in "$PYTHON" python3 /usr/bin/python3 ''; do
    [[ $python ]] && "$python" -c 'import ensurepip, venv' 2>/dev/null && break
  done
  if [[ -z $python ]]; then
    apt_install "Python's venv module" python3 python3-venv
    python=/usr/bin/python3
  fi
  "$python" -m venv --clear .cache/uv
  .cache/uv/bin/pip install --require-hashes -r requirements/uv.txt >>"$LOG" 2>&1 || {
    tail -n 5 "$LOG" >&2
    die "pip could not download uv (full log: $LOG)"
  }
}

# Identifies a finished venv of this kind: another lock, Python or folder gives another stamp.
stamp() {
  printf '%s %s %s %s' "$1" "$(cksum <"requirements/$1.txt")" "$PWD" \
    "$(.venv/bin/python -ISc 'import sys; print(*sys.version_info[:2])' 2>/dev/null)"
}

venv() {
  local kind=$1 found=''
  [[ -e $STAMP ]] && found=$(<"$STAMP")
  [[ $found == dev\ * ]] && kind=dev # it includes all of control
  [[ $found == "$(stamp "$kind")" ]] && return
  find_python || apt_python || true
  find_uv
  [[ $PYTHON ]] || fetch_python
  say "creating .venv ($kind) with $PYTHON"
  # The stamp comes last, so a half-built venv has none and is rebuilt.
  "$UV" venv --quiet --clear --no-project --python "$PYTHON" .venv
  "$UV" pip sync --quiet --require-hashes --python .venv/bin/python "requirements/$kind.txt"
  # Imports from source take three times as long, and do so every time if Python cannot write bytecode.
  .venv/bin/python -m compileall -q -j 0 -x '/ansible_collections/|/tests/' .venv/lib >>"$LOG" 2>&1 || true
  stamp "$kind" >"$STAMP"
}

# --- the Docker engine -------------------------------------------------------------------------------------

answers() { timeout 20 docker info >/dev/null 2>&1; }
answers_root() { as_root timeout 20 docker info >/dev/null 2>&1; }

# Whether process $1 is alive (a zombie has no command line) and is a $2.
is_alive() { [[ $1 ]] && tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qw -- "$2"; } 2>/dev/null

# Docker clients from version 23 on need the buildx plug-in to build images; not every release packages it.
install_docker() {
  local packages=()
  has dockerd || packages=(docker.io iptables ca-certificates)
  if ((${#packages[@]})) && can_apt; then apt_update; fi
  if ! has docker && apt_knows docker-cli; then packages+=(docker-cli); fi
  if ! docker buildx version >/dev/null 2>&1 && apt_knows docker-buildx && can_apt; then
    packages+=(docker-buildx)
  fi
  ((${#packages[@]} == 0)) || apt_install 'a Docker engine' "${packages[@]}"
}

# A killed engine leaves files referring to processes and sockets that are gone; the next one would trust them.
clear_leftovers() {
  local file pid socket=/run/containerd/containerd.sock
  for file in /run/docker.pid /run/docker/containerd/containerd.pid; do
    pid=$(as_root cat "$file" 2>/dev/null) || continue
    is_alive "$pid" "$(basename "$file" .pid | sed 's/^docker$/dockerd/')" || as_root rm -f "$file"
  done
  if [[ -S $socket ]] && ! grep -q " $socket\$" /proc/net/unix; then as_root rm -f "$socket"; fi
}

# Prints the process id of a dockerd in its own session, so that it outlives this shell and its terminal.
spawn_dockerd() {
  # shellcheck disable=SC2016 # the inner shell, which may be root's, expands $1
  as_root sh -c 'setsid dockerd </dev/null >"$1" 2>&1 & echo $!' sh "$DOCKERD_LOG"
}

start_docker() {
  local pid
  say 'starting the Docker engine'
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl start docker && return # returns once the engine answers
    as_root journalctl --no-pager -u docker -n 15 >&2 || true
    die 'systemd could not start docker (the end of its log is above)'
  fi
  clear_leftovers
  pid=$(as_root cat /run/docker.pid 2>/dev/null) || pid=$(spawn_dockerd)
  wait_for_docker "$pid"
}

wait_for_docker() {
  local pid=$1 deadline=$((SECONDS + WAIT_SECONDS))
  until answers_root; do
    if ((SECONDS >= deadline)) || ! is_alive "$pid" dockerd; then
      as_root tail -n 15 "$DOCKERD_LOG" >&2 || true
      die "dockerd (process $pid) does not answer; the end of $DOCKERD_LOG is above." \
        "If it hangs, stop it and try again: sudo kill $pid"
    fi
    sleep 0.5
  done
}

no_permission() {
  die "$(id -un) may not use the Docker engine. Type this, then log in again:" "sudo usermod -aG docker $(id -un)"
}

engine() {
  local why
  if ! why=$(timeout 20 docker info 2>&1 >/dev/null); then
    [[ -z ${DOCKER_HOST:-} ]] || die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" \
      'Start it, or use the local engine: unset DOCKER_HOST'
    has dockerd || is_debian ||
      die 'no Docker engine answers, and it can be installed automatically only on Debian and Ubuntu.' \
        'Install Docker, start it, and try again: https://docs.docker.com/engine/install/'
    may_be_root || { [[ $why == *'permission denied'* ]] && no_permission; } ||
      die 'no Docker engine answers, and starting one requires root. Type:' 'sudo scripts/setup.sh engine'
  fi
  install_docker
  answers && return
  answers_root || start_docker
  answers || no_permission
}

# --- the rest ----------------------------------------------------------------------------------------------

ssh_client() { has ssh || apt_install 'an SSH client' openssh-client; }

# Debian would start it with its own settings.
ssh_server() {
  has sshd && return
  apt_install 'an SSH server' openssh-server
  [[ ! -d /run/systemd/system ]] || as_root systemctl --quiet disable --now ssh.service ssh.socket
}

# Debian would start a server of its own.
postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  apt_install 'PostgreSQL' postgresql
  [[ ! -d /run/systemd/system ]] || as_root systemctl --quiet disable --now postgresql.service
}

# Taken out of Debian's packages: installed, they would run as daemons.
monitors() {
  local folder=.cache/monitors
  { has promtool || [[ -x $folder/usr/bin/promtool ]]; } &&
    { has prometheus-node-exporter || [[ -x $folder/usr/bin/prometheus-node-exporter ]]; } && return
  is_debian || die "promtool or Prometheus' node exporter is missing, and this is not Debian or Ubuntu. Install both and try again."
  say 'downloading promtool and the node exporter'
  mkdir -p "$folder"
  (cd "$folder" && apt-get -q download prometheus prometheus-node-exporter) >>"$LOG" 2>&1 ||
    { apt_update && (cd "$folder" && apt-get -q download prometheus prometheus-node-exporter) >>"$LOG" 2>&1; } ||
    die "apt-get could not download prometheus and prometheus-node-exporter (full log: $LOG)"
  for package in "$folder"/*.deb; do dpkg-deb --extract "$package" "$folder"; done
  rm "$folder"/*.deb
}

# Ubuntu packages Chromium only as a snap, which is unsuitable for tests: there Playwright brings its own.
browser() {
  local name
  for name in chromium chromium-browser google-chrome; do has "$name" && return; done
  compgen -G "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}/chromium*" >/dev/null && return
  if grep -qs '^ID=debian' /etc/os-release; then
    apt_install 'a Chromium' chromium fonts-dejavu-core fonts-liberation
  else
    say 'downloading Chromium with Playwright'
    .venv/bin/playwright install --with-deps chromium >>"$LOG" 2>&1 || {
      tail -n 20 "$LOG" >&2
      die "no Chromium on PATH, and Playwright could not download one (full log: $LOG)"
    }
  fi
}

main() {
  local step
  (($#)) || { usage >&2; exit 2; }
  mkdir -p .cache
  for step in "$@"; do
    case $step in
      control | dev) venv "$step" ;;
      ssh) ssh_client ;;
      sshd) ssh_server ;;
      postgresql | monitors | engine | browser) "$step" ;;
      uv) find_python || true; find_uv; command -v "$UV" ;;
      -h | --help) usage; exit ;;
      *) usage >&2; die "expected one of the steps above; got $step" ;;
    esac
  done
}

main "$@"
