#!/bin/sh
# Waits until the stack is gone, and ends the swarm, but only one that setup.sh
# has made, and that nobody has put anything else into since. An engine that
# leaves a swarm forgets the names of the containers that run in networks of
# their own, until they are started again: so not while there are any.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-swarm
tries=0
while docker ps --all --format '{{.Label "com.docker.stack.namespace"}}' | grep -qx example-swarm ||
	docker network ls --format '{{.Name}}' | grep -qx example-swarm_default; do
	tries=$((tries + 1))
	[ $tries -lt 120 ] || { echo "leave.sh: error: example-swarm is still there" >&2; exit 69; }
	sleep 0.5
done
if [ "$(docker info --format '{{with .Swarm.Cluster}}{{.ID}}{{end}}')" != "$(cat "$folder/made-swarm" 2>/dev/null)" ]; then
	echo "leave.sh: the swarm is not the example's: it stays"
elif [ -n "$(docker service ls --quiet)$(docker secret ls --quiet)$(docker config ls --quiet)" ]; then
	echo "leave.sh: something else is in the swarm: it stays"
elif [ -n "$(docker ps --quiet)" ]; then
	echo "leave.sh: containers are running, which would lose one another's names: it stays"
else
	docker swarm leave --force
	[ ! -e "$folder/made-bridge" ] || docker network rm docker_gwbridge >/dev/null
fi
