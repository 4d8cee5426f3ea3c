#!/usr/bin/env bash
# Starts MariaDB in the manner of the official image: at the first start it
# makes the database and has a temporary server, on the unix socket alone, set
# root's password from MARIADB_ROOT_PASSWORD_FILE (or MARIADB_ROOT_PASSWORD);
# then it becomes the server. Unlike the official one it never exports the
# password that it reads.
set -euo pipefail

note() { echo "[Note] [Entrypoint]: $*"; }
die() { echo "[ERROR] [Entrypoint]: $*" >&2; exit 1; }

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

# Options alone are the server's.
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
	set -- mariadbd "$@"
fi
if [ "$1" != mariadbd ] && [ "$1" != mysqld ]; then
	exec "$@"
fi

if [ "$(id -u)" = 0 ]; then
	note "Switching to dedicated user 'mysql'"
	mkdir -p "$data" "${socket%/*}"
	chown mysql:mysql "$data" "${socket%/*}"
	exec gosu mysql "$0" "$@"
fi

# The statement that sets the password, for the client's standard input: an
# argument could be read by others.
root_sql() {
	local quoted=${1//\\/\\\\}
	quoted=${quoted//\'/\\\'}
	printf "%s\n" \
		"ALTER USER root@localhost IDENTIFIED BY '$quoted';" \
		"CREATE USER root@'%' IDENTIFIED BY '$quoted';" \
		"GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
}

if [ ! -d "$data/mysql" ]; then
	if [ -n "${MARIADB_ROOT_PASSWORD_FILE:-}" ]; then
		[ -z "${MARIADB_ROOT_PASSWORD:-}" ] || die "MARIADB_ROOT_PASSWORD and MARIADB_ROOT_PASSWORD_FILE exclude each other"
		[ -r "$MARIADB_ROOT_PASSWORD_FILE" ] || die "$(id -un) cannot read MARIADB_ROOT_PASSWORD_FILE, $MARIADB_ROOT_PASSWORD_FILE"
	fi
	[ -n "${MARIADB_ROOT_PASSWORD_FILE:-}${MARIADB_ROOT_PASSWORD:-}" ] ||
		die "set MARIADB_ROOT_PASSWORD_FILE to a file that holds root's password"
	note "Initializing database files"
	mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --skip-log-bin >/dev/null
	note "Starting temporary server"
	"$@" --skip-networking --socket="$socket" --datadir="$data" &
	server=$!
	for ((tries = 0; ; tries++)); do
		mariadb --no-defaults --socket="$socket" -uroot -e 'SELECT 1' >/dev/null 2>&1 && break
		[ $tries -lt 300 ] && kill -0 $server || die "the temporary server did not start"
		sleep 0.1
	done
	note "Temporary server started."
	# Read as late as that, so that a file which has gone too early is noticed.
	password=${MARIADB_ROOT_PASSWORD:-$(<"$MARIADB_ROOT_PASSWORD_FILE")}
	root_sql "$password" | mariadb --no-defaults --socket="$socket" -uroot
	unset password
	note "Stopping temporary server"
	kill $server
	wait $server
	note "MariaDB init process done. Ready for start up."
fi

exec "$@" --socket="$socket" --datadir="$data"
