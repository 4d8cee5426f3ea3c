#!/bin/sh
# A Vault in dev mode with one secret, and a role that may read it alone. What
# a deployment would hand to each of two containers goes to
# .cache/example-nonroot: a role id, and a secret id, wrapped.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-nonroot
mkdir -p "$folder"
umask 077
"$top/examples/dev-vault.sh" example-nonroot-vault >"$folder/answers" <<'END'
head -c 18 /dev/urandom | base64 | tr -d '\n' | vault kv put secret/db password=- >/dev/null
vault policy write app - >/dev/null <<'POLICY'
path "secret/data/db" { capabilities = ["read"] }
POLICY
vault auth enable approle >/dev/null
vault write auth/approle/role/app token_policies=app token_ttl=10m secret_id_num_uses=1 >/dev/null
echo "$(vault read -field=role_id auth/approle/role/app/role-id)"
echo "$(vault write -f -wrap-ttl=10m -field=wrapping_token auth/approle/role/app/secret-id)"
echo "$(vault write -f -wrap-ttl=10m -field=wrapping_token auth/approle/role/app/secret-id)"
END
number=1
for name in tmpfs shm; do
	number=$((number + 1))
	{
		echo "VAULT_ADDR=http://example-nonroot-vault:8200"
		echo "VAULT_ROLE_ID=$(sed -n 1p "$folder/answers")"
		echo "VAULT_WRAPPED_TOKEN=$(sed -n ${number}p "$folder/answers")"
		echo "DB_USER=app"
		echo "DB_PASSWORD=vault:secret/db#password"
	} >"$folder/$name.env"
done
rm "$folder/answers"
echo "made .cache/example-nonroot/tmpfs.env and .cache/example-nonroot/shm.env"
