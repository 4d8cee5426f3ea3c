#!/bin/sh
# Two secrets of the swarm, the age key and a password, and a swarm of this
# engine alone where it is in none. That is noted, so that leave.sh undoes what
# was done here and nothing else.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-swarm
case $(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
"active true") ;;
"inactive "*)
	docker network inspect docker_gwbridge >/dev/null 2>&1 || : >"$folder/made-bridge"
	docker swarm init --advertise-addr 127.0.0.1 >/dev/null
	docker info --format '{{.Swarm.Cluster.ID}}' >"$folder/made-swarm"
	;;
*)
	echo "setup.sh: error: this engine is a worker of a swarm, or locked: use a manager" >&2
	exit 69
	;;
esac
# Through a pipe: the password lies in no file.
head -c 12 /dev/urandom | base64 | tr -d '\n' | docker secret create example-swarm-db-password - >/dev/null
docker secret create example-swarm-age-key "$folder/key.txt" >/dev/null
