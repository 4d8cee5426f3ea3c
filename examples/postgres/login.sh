#!/bin/sh
# Logs in over TCP once startup has finished, with the password and with a wrong
# one, and shows what is left of it in the container.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$top/.cache/bin:$PATH
folder=$top/.cache/example-postgres

# In the container, as the server's user.
inside() { docker exec -i --user postgres example-postgres sh -c "$1"; }
# psql asks for the password, and reads it from standard input. The address is
# the container's own: whoever comes from localhost needs no password.
login() { inside 'psql -h "$(hostname)" -U postgres -W -Atc "SELECT '\''logged in over TCP as '\'' || current_user"'; }

tries=0
until inside 'pg_isready -q -h "$(hostname)" && [ -z "$(ls -A /run/secrets 2>/dev/null)" ]'; do
	tries=$((tries + 1))
	[ $tries -lt 60 ] || { docker logs --tail 20 example-postgres >&2; exit 69; }
	sleep 0.5
done
SOPS_AGE_KEY_FILE=$folder/key.txt sops decrypt --extract '["db_password"]' "$folder/secrets.enc.yaml" | login 2>/dev/null
echo wrong | login 2>&1 | grep -o 'password authentication failed.*'
echo "files in /run/secrets: $(inside 'ls -A /run/secrets 2>/dev/null | wc -l')"
echo "variables of the server about it: $(inside 'tr "\0" "\n" </proc/$(head -n 1 "$PGDATA/postmaster.pid")/environ | cut -d= -f1 | grep PASSWORD')"
