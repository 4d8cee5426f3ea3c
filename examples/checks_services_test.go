//go:build integration

package examples

import (
	"net/url"
	"path/filepath"
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
	if len(value) != 24 {
		t.Fatalf("the password has %d bytes", len(value))
	}
	for _, script := range []string{"docker inspect " + container, "docker logs " + container + " 2>&1"} {
		if strings.Contains(r.must(t, script), value) {
			t.Errorf("the password is in the output of %s", script)
		}
	}
	c := servers.FindContainer(t, container)
	if found := append(c.FindInProc(value), c.FindInExport(value)...); len(found) > 0 {
		t.Errorf("the password is in %q", found)
	}
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
