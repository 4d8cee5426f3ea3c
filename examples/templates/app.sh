#!/bin/sh
# The application: it knows a config file alone. It shows what it found there,
# but for the two secrets.
set -eu
printf '%s  mode %s  owner %s  on %s\n' "$1" "$(stat -Lc %a "$1")" "$(stat -Lc %U:%G "$1")" "$(stat -Lf -c %T "$1")"
sed -E -e 's/(app:)[^@]+/\1(the password)/' -e 's/".+"/"(the token)"/' "$1"
