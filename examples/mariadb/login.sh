#!/bin/sh
# Logs in over TCP once startup has finished, with the password and with a wrong
# one, and shows what is left of it in the container.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$top/.cache/bin:$PATH
folder=$top/.cache/example-mariadb

password() { SOPS_AGE_KEY_FILE=$folder/key.txt sops decrypt --extract '["db_password"]' "$folder/secrets.enc.yaml"; }
# In the container, as the server's user.
inside() { docker exec -i --user mysql example-mariadb sh -c "$1"; }
# The client reads the password as a line of its options, from standard input.
login() {
	sed 's/^/[client]\npassword="/; s/$/"/' |
		inside 'mariadb --defaults-extra-file=/dev/stdin --protocol=tcp -h "$(hostname)" -u root -BNe "SELECT CONCAT('\''logged in over TCP as '\'', CURRENT_USER())"'
}

tries=0
until shown=$(password | login 2>/dev/null) && inside '[ -z "$(ls -A /run/secrets 2>/dev/null)" ]'; do
	tries=$((tries + 1))
	[ $tries -lt 60 ] || { docker logs --tail 20 example-mariadb >&2; exit 69; }
	sleep 0.5
done
echo "$shown"
echo wrong | login 2>&1 | grep -o 'Access denied.*'
echo "files in /run/secrets: $(inside 'ls -A /run/secrets 2>/dev/null | wc -l')"
echo "variables of the server about it: $(inside 'tr "\0" "\n" <"$(grep -lx mariadbd /proc/[0-9]*/comm | head -n 1 | xargs dirname)/environ" | cut -d= -f1 | grep PASSWORD')"
