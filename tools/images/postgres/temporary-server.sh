#!/usr/bin/env bash
# Starts PostgreSQL as the official image does at its first start: a temporary
# server, on the unix socket alone and without NOTIFY_SOCKET, sets up the
# database; then it is stopped, and the real one starts. Slow on purpose: what
# takes the temporary server for the real one has all the time to do so.
set -euo pipefail

die() { echo "temporary-server.sh: $*" >&2; exit 1; }

if [ "$(id -u)" = 0 ]; then
	chown postgres:postgres "$PGDATA"
	exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	NOTIFY_SOCKET='' pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start >/dev/null
	echo "the temporary server is up"
	sleep 3
	[ -r "$POSTGRES_PASSWORD_FILE" ] || die "the password has gone too early"
	psql --username postgres --quiet --set password="$(<"$POSTGRES_PASSWORD_FILE")" <<<"ALTER USER postgres PASSWORD :'password'"
	pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
	echo "the temporary server is down"
fi

exec "$@" -c listen_addresses='*'
