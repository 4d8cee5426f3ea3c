#!/bin/sh
# What make demo runs: a throw-away age key, a file that sops encrypts with
# it, and an application that gets its password from there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
work=$(mktemp -d)
dir=/dev/shm/secret-init-demo.$$
trap 'rm -rf "$work" "$dir"' EXIT INT TERM

say() { printf '\n$ %s\n' "$*"; }

say age-keygen -o key.txt
"$top/.cache/bin/age-keygen" -o "$work/key.txt" 2>&1
recipient=$(sed -n 's/^# public key: //p' "$work/key.txt")

say "sops encrypt --age $recipient secrets.yaml > secrets.enc.yaml"
printf 'db_password: %s\n' "$(head -c 18 /dev/urandom | base64)" >"$work/secrets.yaml"
"$top/.cache/bin/sops" encrypt --age "$recipient" "$work/secrets.yaml" >"$work/secrets.enc.yaml"
grep '^db_password' "$work/secrets.enc.yaml"
rm "$work/secrets.yaml"

# --dir only because this is no container: in one, /run/secrets is the place.
cd "$work"
export SOPS_AGE_KEY_FILE="$work/key.txt"
say "DB_USER=app DB_PASSWORD=sops:secrets.enc.yaml#db_password secret-init --dir $dir -- ./app.sh"
DB_USER=app DB_PASSWORD=sops:secrets.enc.yaml#db_password "$top/bin/secret-init" --dir "$dir" -- "$here/app.sh"

say "DB_PASSWORD=sops:secrets.enc.yaml#db_pasword secret-init --dir $dir -- ./app.sh"
DB_PASSWORD=sops:secrets.enc.yaml#db_pasword "$top/bin/secret-init" --dir "$dir" -- "$here/app.sh" || echo "exit code $?; the application did not start"
