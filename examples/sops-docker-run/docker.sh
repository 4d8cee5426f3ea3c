#!/bin/sh
# The same as demo.sh, in a container: the key is a mounted file that only
# root can read, and the application runs as a user of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
work=$(mktemp -d)
image=sops-example-$$
trap 'rm -rf "$work"; docker rmi -f "$image" >/dev/null 2>&1 || true' EXIT INT TERM

"$top/.cache/bin/age-keygen" -o "$work/key.txt" 2>/dev/null
chmod 0400 "$work/key.txt"
printf 'db_password: %s\n' "$(head -c 18 /dev/urandom | base64)" >"$work/secrets.yaml"
"$top/.cache/bin/sops" encrypt --age "$(sed -n 's/^# public key: //p' "$work/key.txt")" "$work/secrets.yaml" >"$work/secrets.enc.yaml"

docker build -q -t "$image" -f "$top/Dockerfile.example" ${BASE:+--build-arg "BASE=$BASE"} "$top" >/dev/null
docker run --rm ${RUN_FLAGS:-} \
    -v "$work/key.txt:/key.txt:ro" -v "$work/secrets.enc.yaml:/secrets.enc.yaml:ro" \
    -e SOPS_AGE_KEY_FILE=/key.txt \
    -e DB_USER=app -e DB_PASSWORD=sops:/secrets.enc.yaml#db_password \
    "$image"
