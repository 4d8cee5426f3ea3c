#!/usr/bin/env bash
# Starts MariaDB as the official image does: root's password is read by a
# function that exports it, and exported again under its older name, once as root
# and once more as mysql. At the first start a temporary server, on the unix socket
# alone, gives it to the two users called root. That one is there for two seconds
# more, so that a probe which takes it for the real one has the time to do so.
set -Eeuo pipefail

note() { echo "[Note] [Entrypoint]: $*"; }
die() { echo "[ERROR] [Entrypoint]: $*" >&2; exit 1; }

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

# The exports and the unset are written as in the official image: the example's
# Dockerfile rewrites them.
file_env() {
	local var=$1 fileVar=$1_FILE val=
	[ -z "${!var:-}" ] || [ -z "${!fileVar:-}" ] || die "$var and $fileVar exclude each other"
	if [ -n "${!var:-}" ]; then
		val=${!var}
	elif [ -n "${!fileVar:-}" ]; then
		val=$(<"${!fileVar}")
	fi
	export "$var"="$val"
	unset "$fileVar"
}
older_name() {
	local var=$1 maria=$2
	export "$var"="${!maria}"
}

# The statements go to the client's standard input: an argument could be read
# by others.
statements() {
	local quoted=${1//\\/\\\\}
	quoted=${quoted//\'/\\\'}
	printf '%s\n' \
		"ALTER USER root@localhost IDENTIFIED BY '$quoted';" \
		"CREATE USER root@'%' IDENTIFIED BY '$quoted';" \
		"GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
}

if [ "${1:-}" != mariadbd ]; then
	exec "$@"
fi

file_env MARIADB_ROOT_PASSWORD
older_name MYSQL_ROOT_PASSWORD MARIADB_ROOT_PASSWORD
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$data" "${socket%/*}"
	chown mysql:mysql "$data" "${socket%/*}"
	note "Switching to dedicated user 'mysql'"
	exec gosu mysql "$0" "$@"
fi

if [ ! -d "$data/mysql" ]; then
	[ -n "$MARIADB_ROOT_PASSWORD" ] || die "set MARIADB_ROOT_PASSWORD_FILE to a file that holds root's password"
	note "Initializing database files"
	# The last option leaves out a root without a password, of this host name.
	mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --cross-bootstrap >/dev/null
	note "Starting temporary server"
	"$@" --skip-networking --socket="$socket" --datadir="$data" &
	server=$!
	for ((tries = 0; ; tries++)); do
		mariadb --no-defaults --socket="$socket" -uroot -e 'SELECT 1' >/dev/null 2>&1 && break
		[ $tries -lt 300 ] && kill -0 $server || die "the temporary server did not start"
		sleep 0.1
	done
	note "Temporary server started."
	statements "$MARIADB_ROOT_PASSWORD" | mariadb --no-defaults --socket="$socket" -uroot
	sleep 2
	note "Stopping temporary server"
	kill $server
	wait $server
	note "MariaDB init process done. Ready for start up."
fi

exec "$@" --socket="$socket" --datadir="$data"
