#!/bin/sh
# What the cluster and its Vault would bring: a Vault in dev mode with one
# secret, which believes the tokens of one issuer, and a token as that issuer
# makes it for the pod's service account (.cache/example-kubernetes/vault-token).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
folder=$top/.cache/example-kubernetes
mkdir -p "$folder/vault-token"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
openssl genrsa -out "$work/issuer.key" 2048 2>/dev/null

"$top/examples/dev-vault.sh" example-kubernetes-vault <<END
head -c 18 /dev/urandom | base64 | tr -d '\n' | vault kv put secret/db password=- >/dev/null
vault policy write app - >/dev/null <<'POLICY'
path "secret/data/db" { capabilities = ["read"] }
POLICY
vault auth enable jwt >/dev/null
vault write auth/jwt/config jwt_validation_pubkeys='$(openssl rsa -in "$work/issuer.key" -pubout 2>/dev/null)' >/dev/null
vault write auth/jwt/role/app role_type=jwt user_claim=sub bound_audiences=vault \
    bound_subject=system:serviceaccount:default:app token_policies=app token_ttl=10m >/dev/null
END

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
unsigned=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url).$(
	printf '{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:default:app","aud":["vault"],"iat":%d,"nbf":%d,"exp":%d}' \
		"$now" "$now" "$((now + 600))" | base64url)
printf '%s.%s' "$unsigned" "$(printf %s "$unsigned" | openssl dgst -sha256 -sign "$work/issuer.key" -binary | base64url)" \
	>"$folder/vault-token/token"
echo "made .cache/example-kubernetes/vault-token/token"
