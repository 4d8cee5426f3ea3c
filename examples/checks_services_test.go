//go:build integration

package examples

import (
	"context"
	"encoding/json"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// postgresImage is Debian's PostgreSQL, with an entry script that treats the
// password at the first start as the official one does.
func postgresImage(tb testing.TB) string {
	return servers.BuildImage(tb, "FROM "+servers.PostgresImage(tb)+"\nCOPY docker-entrypoint.sh /usr/local/bin/\n",
		map[string]string{"docker-entrypoint.sh": filepath.Join(servers.Root(), "tools/images/postgres/first-start.sh")})
}

// checkPostgres: the file goes after the temporary server, at both starts, and
// the password is nowhere in the container.
func checkPostgres(t *testing.T, r *run) {
	removedAfter(t, r, "example-postgres", "PostgreSQL init process complete")
	nowhere(t, r, "example-postgres", r.sopsValues(t)["db_password"])
}

// checkMariaDB looks for the same as checkPostgres.
func checkMariaDB(t *testing.T, r *run) {
	removedAfter(t, r, "example-mariadb", "MariaDB init process done")
	nowhere(t, r, "example-mariadb", r.sopsValues(t)["db_password"])
}

// removedAfter: of two starts, the first said text, the end of what it does
// once, before the files were removed.
func removedAfter(t *testing.T, r *run, container, text string) {
	t.Helper()
	const removed = "secret files removed"
	logs := r.must(t, "docker logs "+container+" 2>&1")
	complete, gone := strings.Index(logs, text), strings.Index(logs, removed)
	if complete < 0 || gone < complete || strings.Count(logs, text) != 1 || strings.Count(logs, removed) != 2 {
		t.Errorf("%q has to come once, and %q after it and once more:\n%s", text, removed, logs)
	}
}

// nowhere: the value is not in what the engine tells of the container, not in
// its files, and not with any of its processes.
func nowhere(t *testing.T, r *run, container, value string) {
	t.Helper()
	if len(value) < 24 {
		t.Fatalf("the secret has %d bytes", len(value))
	}
	for _, script := range []string{"docker inspect " + container, "docker logs " + container + " 2>&1"} {
		if strings.Contains(r.must(t, script), value) {
			t.Errorf("the secret is in the output of %s", script)
		}
	}
	c := servers.FindContainer(t, container)
	if found := append(c.FindInProc(value), c.FindInExport(value)...); len(found) > 0 {
		t.Errorf("the secret is in %q", found)
	}
}

// checkRemoveReady: nothing is left when the file has gone, and the same is so
// after a restart, when the file of the probe is there from before.
func checkRemoveReady(t *testing.T, r *run) {
	c := servers.FindContainer(t, r.must(t, `docker run -d --name example-remove-ready -v "$PWD/.cache/example-remove-ready:/sops:ro" \
		-e SOPS_AGE_KEY_FILE=/sops/key.txt -e SECRET_INIT_LOG_LEVEL=info \
		-e DB_PASSWORD=sops:/sops/secrets.enc.yaml#db_password \
		example-remove-ready sh -c 'test -s "$DB_PASSWORD_FILE" && touch /run/app/ready && exec sleep 60'`))
	t.Cleanup(func() {
		if out, err := command(context.Background(), r.env, "docker rm -f -v "+c.ID); err != nil {
			t.Errorf("docker rm: %v\n%s", err, out)
		}
	})
	for starts := 1; starts <= 2; starts++ {
		if starts > 1 {
			c.Restart()
		}
		c.WaitLog("secret files removed", starts)
		if left := c.MustExec("0", "sh", "-c", "find /run/secrets /dev/shm -mindepth 1 2>/dev/null; true"); left != "" || !c.Running() {
			t.Errorf("start %d: this is left: %q", starts, left)
		}
	}
	nowhere(t, r, "example-remove-ready", r.sopsValues(t)["db_password"])
}

// checkTemplates compares the file with what the template and the values make.
func checkTemplates(t *testing.T, r *run) {
	values := r.sopsValues(t)
	got := r.must(t, `docker run --rm -v "$PWD/.cache/example-templates:/sops:ro" -e SOPS_AGE_KEY_FILE=/sops/key.txt \
		-e DB_PASSWORD=sops:/sops/secrets.enc.yaml#db_password -e API_TOKEN=sops:/sops/secrets.enc.yaml#api_token \
		example-templates cat /etc/app/app.ini`)
	want := "[database]\nurl = postgres://app:" + url.QueryEscape(values["db_password"]) + "@db/app\n[payment]\ntoken = \"" + values["api_token"] + `"`
	if got != want {
		t.Errorf("app.ini is %q, and not %q", got, want)
	}
}

// checkPKI: the certificates that were shown are different ones, and Vault has
// issued no second one beside each, of which the key could be.
func checkPKI(t *testing.T, r *run) {
	shown := regexp.MustCompile(`(?m)^certificate ([0-9a-f]{32,})$`).FindAllStringSubmatch(r.output, -1)
	serials := map[string]bool{}
	for _, match := range shown {
		serials[match[1]] = true
	}
	if len(shown) < 2 || len(serials) != len(shown) {
		t.Errorf("these certificates were shown: %q", shown)
	}
	var issued []string
	listed := r.must(t, "docker exec -e VAULT_ADDR=http://127.0.0.1:8200 -e VAULT_TOKEN=throw-away example-pki-vault vault list -format=json pki/certs")
	if err := json.Unmarshal([]byte(strings.ReplaceAll(listed, ":", "")), &issued); err != nil {
		t.Fatalf("%v:\n%s", err, listed)
	}
	for serial := range serials {
		if !slices.Contains(issued, serial) {
			t.Errorf("Vault has not issued %s:\n%s", serial, listed)
		}
	}
	// The authority's own is in the list, and nginx may have got another since.
	if n := len(issued) - 1; n < len(serials) || n > len(serials)+1 {
		t.Errorf("%d certificates were shown, and Vault has issued %d:\n%s", len(serials), n, listed)
	}
	if out, err := command(t.Context(), r.env, "docker exec --user nobody example-pki-nginx cat /run/secrets/web.key"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("nobody can read the key, or it is not there: %v", err)
	}
	key := strings.Split(r.must(t, "docker exec example-pki-nginx cat /run/secrets/web.key"), "\n")
	nowhere(t, r, "example-pki-nginx", key[len(key)/2])
}
