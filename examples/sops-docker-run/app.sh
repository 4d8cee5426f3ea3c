#!/bin/sh
# The application: it shows what secret-init left it.
set -eu
echo "pid $$ runs as uid $(id -u); its variables about the database:"
env | grep '^DB_' | sort | sed 's/^/    /'
echo "the file:"
printf '    %s  mode %s  owner %s  on %s\n' "$DB_PASSWORD_FILE" \
    "$(stat -Lc %a "$DB_PASSWORD_FILE")" "$(stat -Lc %U:%G "$DB_PASSWORD_FILE")" "$(stat -Lf -c %T "$DB_PASSWORD_FILE")"
echo "the password has $(wc -c <"$DB_PASSWORD_FILE" | tr -d ' ') bytes; it is in $(tr '\0' '\n' </proc/$$/environ | grep -c "$(cat "$DB_PASSWORD_FILE")" || true) of the process's variables"
