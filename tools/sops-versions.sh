#!/bin/sh
# Builds older sops commands, for the test that decrypts what they encrypted.
# Usage: tools/sops-versions.sh FOLDER [VERSION...]
# By default the oldest minor version that is promised and the last but one:
# all of v3.8.1 v3.9.4 v3.10.2 v3.11.0 v3.12.1 take five minutes on two cores.
set -eu
folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
for version in ${*:-v3.8.1 v3.12.1}; do
	[ -x "$folder/sops-$version" ] && continue
	new=$(mktemp -d "$folder/build.XXXXXX")
	# -s -w: half the size, and nobody debugs it.
	CGO_ENABLED=0 GOFLAGS='' GOBIN="$new" nice go install -trimpath -ldflags '-s -w' "github.com/getsops/sops/v3/cmd/sops@$version"
	mv "$new/sops" "$folder/sops-$version"
	rmdir "$new"
done
