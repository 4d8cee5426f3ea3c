#!/bin/sh
# Usage: logs.sh SERVICE
#
# Waits until the one task of a service has ended, and shows what it has said.
set -eu
[ $# -eq 1 ] || { echo "usage: logs.sh SERVICE" >&2; exit 64; }
tries=0
until docker service ps "$1" --format '{{.CurrentState}}' | grep -qE '^(Complete|Failed|Rejected)'; do
	tries=$((tries + 1))
	[ $tries -lt 120 ] || { docker service ps --no-trunc "$1" >&2; exit 69; }
	sleep 0.5
done
docker service logs --raw "$1"
