#!/bin/sh
# Usage: dev-vault.sh NAME < COMMANDS
#
# Starts a Vault in dev mode (memory only, no TLS) as the container NAME in a
# network NAME, and runs the commands from standard input in it as root.
# VAULT_IMAGE is another image than hashicorp/vault.
set -eu
[ $# -eq 1 ] || { echo "usage: dev-vault.sh NAME < COMMANDS" >&2; exit 64; }
docker network create --internal "$1" >/dev/null
docker run -d --name "$1" --network "$1" "${VAULT_IMAGE:-hashicorp/vault}" \
	server -dev -dev-root-token-id=throw-away -dev-listen-address=0.0.0.0:8200 >/dev/null
in_vault() { docker exec -e VAULT_ADDR=http://127.0.0.1:8200 -e VAULT_TOKEN=throw-away "$@"; }
tries=0
until in_vault "$1" vault kv get secret/none 2>&1 | grep -q 'No value found'; do
	tries=$((tries + 1))
	[ $tries -lt 60 ] && [ -n "$(docker ps -q --filter "name=^$1\$")" ] || { docker logs "$1" >&2; exit 69; }
	sleep 0.5
done
# Not from standard input: vault itself may read that.
in_vault "$1" sh -euc "$(cat)"
