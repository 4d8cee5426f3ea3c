#!/bin/sh
# The files of both: what a developer keeps (db_password), and what is in
# production (a SOPS file with another password, and its key).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-compose
"$top/examples/new-sops-file.sh" "$folder" db_password
printf 'for-development' >"$folder/db_password"
# Compose mounts the file with the owner and mode that it has here.
chmod 0444 "$folder/db_password"
