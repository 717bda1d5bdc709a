#!/usr/bin/env bash
# Looks up, pulls or pushes one image, with a login that lasts for this command only and is never stored:
#   registry.sh look|pull|push REGISTRY HELPER REPOSITORY:TAG LOCAL-NAME
# The tag in the registry ends with the engine's architecture; the full name there is the first line of the output.
# Exit status 3: the registry does not have the image.
set -euo pipefail

docker=${DOCKER_COMMAND:-docker}

# Shows the credential helper's error, which Docker would hide.
check_login() {
  local registry=$1 helper=docker-credential-$2 said
  command -v "$helper" >/dev/null || { echo "$helper is not on this machine's PATH" >&2; return 1; }
  said=$("$helper" get <<<"$registry") && return
  printf '%s\n' "$helper: $said" >&2
  grep -s 'level=error' "$AWS_ECR_CACHE_DIR/log/ecr-login.log" >&2 || true
  return 1
}

run() {
  local action=$1 remote=$2 local=$3 insecure=''
  case $action in
    look)
      # Like the engine, do without TLS for a registry on the same machine.
      [[ $remote =~ ^(localhost|127\.[0-9.]+): ]] && insecure=--insecure
      # `manifest inspect` reports every failure as "no such manifest"; a pull, which then fetches nothing, tells them apart.
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

  # A separate configuration hides the user's, including which engine the client talks to.
  DOCKER_HOST=$("$docker" context inspect --format '{{.Endpoints.docker.Host}}')
  DOCKER_CONFIG=$(mktemp -d)
  trap 'rm -rf "$DOCKER_CONFIG"' EXIT
  # Otherwise Amazon's helper would store tokens in ~/.ecr.
  export DOCKER_HOST DOCKER_CONFIG AWS_ECR_DISABLE_CACHE=true AWS_ECR_CACHE_DIR=$DOCKER_CONFIG
  if [[ $helper ]]; then
    check_login "$registry" "$helper"
    printf '{"credHelpers": {"%s": "%s"}}' "$registry" "$helper" >"$DOCKER_CONFIG/config.json"
  fi

  run "$action" "$remote" "$local" 2>"$DOCKER_CONFIG/errors" || status=$?
  cat "$DOCKER_CONFIG/errors" >&2
  # Units use the local name only, and an image with two names would not be pruned.
  "$docker" image rm "$remote" >/dev/null 2>&1 || true
  if ((status)) && grep -qE 'manifest unknown|name unknown|(manifest for|repository) .* not found' "$DOCKER_CONFIG/errors"; then
    status=3
  fi
  return "$status"
}

main "$@"
