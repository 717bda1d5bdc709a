#!/usr/bin/env bash
# Looks for, pulls or pushes one image, with a login that ends with this command and is never stored:
#   registry.sh look|pull|push REGISTRY HELPER REPOSITORY:TAG LOCAL-NAME
# The tag in the registry ends with the engine's architecture; the full name there is the first line of the output.
# Exit status 3: the registry does not have the image.
set -euo pipefail

docker=${DOCKER_COMMAND:-docker}

# What the credential helper has to say if it fails; Docker itself would keep it to itself.
check_login() {
  local registry=$1 helper=docker-credential-$2 said
  command -v "$helper" >/dev/null || { echo "there is no $helper on this machine's PATH" >&2; return 1; }
  said=$("$helper" get <<<"$registry") && return
  printf '%s\n' "$helper: $said" >&2
  grep -s 'level=error' "$AWS_ECR_CACHE_DIR/log/ecr-login.log" >&2 || true
  return 1
}

run() {
  local action=$1 remote=$2 local=$3 insecure=''
  case $action in
    look)
      # As the engine does, do without TLS for a registry on the very machine.
      [[ $remote =~ ^(localhost|127\.[0-9.]+): ]] && insecure=--insecure
      # `manifest inspect` calls every failure "no such manifest"; a pull, with nothing to fetch then, tells them apart.
      "$docker" manifest inspect ${insecure:+"$insecure"} "$remote" >/dev/null 2>&1 || "$docker" pull --quiet "$remote"
      ;;
    pull) "$docker" pull --quiet "$remote" && "$docker" tag "$remote" "$local" ;;
    push) "$docker" tag "$local" "$remote" && "$docker" push --quiet "$remote" ;;
  esac
}

main() {
  local action=$1 registry=$2 helper=$3 name=$4 local=$5 remote status=0
  remote=$registry/$name-$("$docker" version --format '{{.Server.Arch}}')
  echo "$remote"

  # A configuration of our own hides the person's, and with it which engine the client talks to.
  DOCKER_HOST=$("$docker" context inspect --format '{{.Endpoints.docker.Host}}')
  DOCKER_CONFIG=$(mktemp -d)
  trap 'rm -rf "$DOCKER_CONFIG"' EXIT
  # Amazon's helper would keep tokens in ~/.ecr.
  export DOCKER_HOST DOCKER_CONFIG AWS_ECR_DISABLE_CACHE=true AWS_ECR_CACHE_DIR=$DOCKER_CONFIG
  if [[ $helper ]]; then
    check_login "$registry" "$helper"
    printf '{"credHelpers": {"%s": "%s"}}' "$registry" "$helper" >"$DOCKER_CONFIG/config.json"
  fi

  run "$action" "$remote" "$local" 2>"$DOCKER_CONFIG/errors" || status=$?
  cat "$DOCKER_CONFIG/errors" >&2
  # Units name the local image only, and an image with two names would not be removed when it is old.
  "$docker" image rm "$remote" >/dev/null 2>&1 || true
  if ((status)) && grep -qE 'manifest unknown|name unknown|(manifest for|repository) .* not found' "$DOCKER_CONFIG/errors"; then
    status=3
  fi
  return "$status"
}

main "$@"
