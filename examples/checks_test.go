//go:build integration

package examples

import (
	"net"
	"os"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// vaultImage has the vault command as the official image does. The variable is
// for Vault 1.13: its dependencies embed a certificate that Go 1.23 refuses.
func vaultImage(tb testing.TB) string {
	return servers.BuildImage(tb, `FROM debian:bookworm-slim
ENV GODEBUG=x509negativeserial=1
COPY vault /bin/vault
ENTRYPOINT ["/bin/vault"]
`,
		map[string]string{"vault": servers.Tool(tb, "vault", "bao")})
}

// checkVault starts the container again: what the README says about the used
// wrapping token has to be so.
func checkVault(t *testing.T, r *run) {
	out, err := command(t.Context(), r.env, r.last())
	if exitCode(err) != 77 || !strings.Contains(out, "wrapping token") {
		t.Errorf("with the used wrapping token: %v\n%s", err, out)
	}
	password := r.must(t, "docker exec -e VAULT_ADDR=http://127.0.0.1:8200 -e VAULT_TOKEN=throw-away example-vault vault kv get -field=password secret/db")
	if len(password) != 24 || strings.Contains(r.output+out, password) {
		t.Errorf("the password is in the output, or is none: it has %d bytes\n%s", len(password), r.output)
	}
}

// motoEnv starts moto, and gives the settings with which this machine and its
// containers reach it: at the address of the engine's own bridge.
func motoEnv(t *testing.T) []string {
	bridge := &servers.Network{ID: "bridge", Gateway: bridgeAddress(t)}
	moto := servers.StartMoto(t)
	var env []string
	for name, value := range moto.Env() {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	// Version 1 of the aws command does not read AWS_REGION.
	return append(env, "AWS_ENDPOINT_URL="+bridge.Relay(t, moto.URL), "AWS_DEFAULT_REGION="+moto.Env()["AWS_REGION"])
}

// bridgeAddress is this machine's in the network in which containers are that
// ask for none. The engine does not always tell it.
func bridgeAddress(t *testing.T) string {
	t.Helper()
	out, err := command(t.Context(), os.Environ(), `docker network inspect bridge --format '{{index .Options "com.docker.network.bridge.name"}}'`)
	if err != nil {
		t.Fatalf("docker network inspect: %v\n%s", err, out)
	}
	bridge, err := net.InterfaceByName(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := bridge.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if ip, _, err := net.ParseCIDR(address.String()); err == nil && ip.To4() != nil {
			return ip.String()
		}
	}
	t.Fatalf("%s has no address", bridge.Name)
	return ""
}

func checkAWS(t *testing.T, r *run) {
	password := r.must(t, "aws secretsmanager get-secret-value --secret-id example/db --query SecretString --output text")
	if len(password) < 24 || strings.Contains(r.output, strings.Split(password, `"`)[3]) {
		t.Errorf("the password is in the output, or is none:\n%s", r.output)
	}
}
