#!/usr/bin/env bash
# Starts PostgreSQL as the official image does, for the example that is built on
# that: the password is read by a function that exports it, once as root and
# once more as postgres, and at the first start a temporary server, on the unix
# socket alone, runs while the database is set up. It is there for two seconds,
# so that a probe which takes it for the real one has the time to do so.
set -Eeuo pipefail

die() { echo "docker-entrypoint.sh: $*" >&2; exit 1; }

# The export and the unset are written as in the official image: the example's
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

file_env POSTGRES_PASSWORD
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown postgres:postgres "$PGDATA"
	chmod 0700 "$PGDATA"
	exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	[ -n "$POSTGRES_PASSWORD" ] || die "set POSTGRES_PASSWORD_FILE to a file that holds the superuser's password"
	initdb --username=postgres --encoding=UTF8 --locale=C.UTF-8 --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	export PGPASSWORD=$POSTGRES_PASSWORD
	NOTIFY_SOCKET='' pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
	sleep 2
	pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGPASSWORD
	echo "PostgreSQL init process complete; ready for start up."
fi

exec "$@" -c listen_addresses='*'
