#!/bin/sh
# Usage: new-sops-file.sh FOLDER NAME...
#
# Makes FOLDER with a throw-away age key (key.txt) and a file that sops has
# encrypted for it (secrets.enc.yaml), with a random value for each NAME.
set -eu
[ $# -ge 2 ] || { echo "usage: new-sops-file.sh FOLDER NAME..." >&2; exit 64; }
top=$(cd "$(dirname "$0")/.." && pwd)
PATH=$top/.cache/bin:$PATH
for tool in age-keygen sops; do
	command -v "$tool" >/dev/null || { echo "new-sops-file.sh: error: there is no $tool; make tools builds it" >&2; exit 69; }
done
folder=$1
shift
mkdir -p "$folder"
rm -f "$folder/key.txt" "$folder/secrets.enc.yaml"
age-keygen -o "$folder/key.txt" 2>/dev/null
chmod 0400 "$folder/key.txt"
# Through a pipe: the values lie in no file that is not encrypted.
for name; do
	printf '%s: %s\n' "$name" "$(head -c 18 /dev/urandom | base64)"
done | sops encrypt --age "$(age-keygen -y "$folder/key.txt")" --input-type yaml --output-type yaml /dev/stdin >"$folder/secrets.enc.yaml"
echo "made $folder/key.txt and $folder/secrets.enc.yaml"
