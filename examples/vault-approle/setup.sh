#!/bin/sh
# A Vault in dev mode with one secret, and a role that may read it alone. What
# a deployment would have of it goes to .cache/example-vault: the role's id and
# a secret id, wrapped, so that it works once.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-vault
mkdir -p "$folder"
"$top/examples/dev-vault.sh" example-vault >"$folder/answers" <<'END'
head -c 18 /dev/urandom | base64 | tr -d '\n' | vault kv put secret/db password=- >/dev/null
vault policy write app - >/dev/null <<'POLICY'
path "secret/data/db" { capabilities = ["read"] }
POLICY
vault auth enable approle >/dev/null
vault write auth/approle/role/app token_policies=app token_ttl=10m secret_id_num_uses=1 >/dev/null
echo "$(vault read -field=role_id auth/approle/role/app/role-id)"
echo "$(vault write -f -wrap-ttl=10m -field=wrapping_token auth/approle/role/app/secret-id)"
END
echo "VAULT_ROLE_ID=$(sed -n 1p "$folder/answers")" >"$folder/role.env"
# The container's root alone can read it.
(umask 077 && sed -n 2p "$folder/answers" >"$folder/wrapped-secret-id")
rm "$folder/answers"
echo "made .cache/example-vault/role.env and .cache/example-vault/wrapped-secret-id"
