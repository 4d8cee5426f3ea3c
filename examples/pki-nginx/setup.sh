#!/bin/sh
# A Vault in dev mode with an authority of its own, and a role that may have
# certificates for app.test from it. What a deployment would have of it goes to
# .cache/example-pki-nginx: the role's id, a secret id, and the authority's
# certificate for the clients.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-pki-nginx
mkdir -p "$folder"
"$top/examples/dev-vault.sh" example-pki-vault >"$folder/answers" <<'END'
vault secrets enable pki >/dev/null
vault write -format=json pki/root/generate/internal common_name="example authority" ttl=24h >/dev/null
# generate_lease: without it a certificate has no lease to go by.
vault write -format=json pki/roles/web allowed_domains=app.test allow_bare_domains=true generate_lease=true ttl=20s max_ttl=20s >/dev/null
vault policy write web - >/dev/null <<'POLICY'
path "pki/issue/web" { capabilities = ["update"] }
POLICY
vault auth enable approle >/dev/null
vault write auth/approle/role/web token_policies=web token_period=10m >/dev/null
echo "$(vault read -field=role_id auth/approle/role/web/role-id)"
echo "$(vault write -f -field=secret_id auth/approle/role/web/secret-id)"
vault read -field=certificate pki/cert/ca
END
echo "VAULT_ROLE_ID=$(sed -n 1p "$folder/answers")" >"$folder/role.env"
# The container's root alone can read it.
(umask 077 && sed -n 2p "$folder/answers" >"$folder/secret-id")
sed 1,2d "$folder/answers" >"$folder/ca.pem"
rm "$folder/answers"
echo "made role.env, secret-id and ca.pem in .cache/example-pki-nginx"
