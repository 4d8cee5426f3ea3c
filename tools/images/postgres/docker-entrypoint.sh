#!/usr/bin/env bash
# Starts PostgreSQL in the manner of the official image: makes the cluster at
# the first start, as the user postgres, with the superuser's password from
# POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD), and then becomes the server.
# Unlike the official one it never exports the password that it reads.
set -euo pipefail

die() { echo "docker-entrypoint.sh: $*" >&2; exit 1; }

# Options alone are the server's.
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
	set -- postgres "$@"
fi
if [ "$1" != postgres ]; then
	exec "$@"
fi

# The server refuses to run as root. A start that is somebody else already,
# because what came before switched the user, goes straight on.
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown postgres:postgres "$PGDATA"
	chmod 0700 "$PGDATA"
	exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
		[ -z "${POSTGRES_PASSWORD:-}" ] || die "POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE exclude each other"
		[ -r "$POSTGRES_PASSWORD_FILE" ] || die "$(id -un) cannot read POSTGRES_PASSWORD_FILE, $POSTGRES_PASSWORD_FILE"
		password=$(<"$POSTGRES_PASSWORD_FILE")
	else
		password=${POSTGRES_PASSWORD:-}
	fi
	[ -n "$password" ] || die "set POSTGRES_PASSWORD_FILE to a file that holds the superuser's password"
	# printf is the shell's own, so that the password is in no argument list.
	initdb --username=postgres --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --pwfile=<(printf '%s\n' "$password")
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	unset password
fi

exec "$@" -c listen_addresses='*'
