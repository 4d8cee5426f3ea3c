package plan

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
)

func TestOptionsMerge(t *testing.T) {
	p := world{
		args:   []string{"--dir=/a/", "--from", "sops:a", "--from=sops:b, sops:c,", "--allow-new-privs", "--", "cmd", "--dir", "/x"},
		env:    []string{"SECRET_INIT_DIR=/b", "SECRET_INIT_FROM=sops:x", "SECRET_INIT_TIMEOUT=5s", "SECRET_INIT_USER=", "SECRET_INIT_MAX_SIZE=1MiB", "SECRET_INIT_LOG_FORMAT=json"},
		config: "dir: /c\ntimeout: 6s\nuser: app\nowner: db\nkeep-cap: [chown, setuid]\nexisting: error\nlog-level: debug\nkeep-env: A,B\ndrop-env: C*\nliteral: L\nallow-new-privs: false\n",
	}.mustPlan(t)
	want := Defaults()
	want.From, want.Literal, want.Dir, want.User, want.Owner = []string{"sops:a", "sops:b", "sops:c"}, []string{"L"}, "/a", "app", "db"
	want.KeepCap, want.AllowNewPrivs, want.KeepEnv, want.DropEnv = []string{"chown", "setuid"}, true, []string{"A", "B"}, []string{"C*"}
	want.Existing, want.MaxSize, want.Timeout, want.LogLevel, want.LogFormat = "error", 1<<20, 5*time.Second, "debug", "json"
	if !reflect.DeepEqual(p.Options, want) {
		t.Errorf("got  %+v\nwant %+v", p.Options, want)
	}
	if got := strings.Join(p.Command, " "); got != "cmd --dir /x" {
		t.Error(got)
	}
}

func TestCommand(t *testing.T) {
	if p := (world{}).mustPlan(t); p.Command != nil {
		t.Error("a command without --")
	}
	if p := (world{args: []string{"--"}}).mustPlan(t); p.Command == nil || len(p.Command) != 0 {
		t.Error("no empty command after --")
	}
	if p := (world{args: []string{"--", "--", "x"}}).mustPlan(t); strings.Join(p.Command, " ") != "-- x" {
		t.Error(p.Command)
	}
}

func TestOptionFaults(t *testing.T) {
	tests := []struct {
		args []string
		env  string
		want string
	}{
		{[]string{"postgres"}, "", "unexpected argument \"postgres\"\n  write -- before the command: secret-init [OPTION...] -- COMMAND"},
		{[]string{"--usr", "app"}, "", "unknown option --usr\n  write --user; or look with: secret-init help"},
		{[]string{"-user", "app"}, "", "unknown option -user\n  write --user; or look with: secret-init help"},
		{[]string{"--password=" + canary}, "", "unknown option --password\n  look with: secret-init help"},
		{[]string{"--user"}, "", "--user needs a value\n  write --user=VALUE"},
		{[]string{"--user", "--", "cmd"}, "", "--user needs a value\n  write --user=VALUE"},
		{[]string{"--user", "--dir", "/x", "--", "cmd"}, "", "--user needs a value\n  write --user=VALUE"},
		{[]string{"--user="}, "", "--user: the value is empty\n  leave it out for the default"},
		{[]string{"--user", ""}, "", "--user: the value is empty\n  leave it out for the default"},
		{[]string{"--dir", "run"}, "", "--dir: \"run\" is not an absolute path below the root\n  write it from the root, as in /run/secrets"},
		{[]string{"--dir", "/x/.."}, "", "--dir: \"/x/..\" is not an absolute path below the root\n  write it from the root, as in /run/secrets"},
		{[]string{"--existing", "no"}, "", "--existing: \"no\" is not one of its words\n  it takes: use, replace, error"},
		{[]string{"--timeout", "30"}, "", "--timeout: \"30\" is not a duration\n  write it as in 30s, 2m or 1h30m"},
		{[]string{"--timeout", "-1s"}, "", "--timeout: \"-1s\" is not a duration\n  write it as in 30s, 2m or 1h30m"},
		{[]string{"--allow-new-privs=maybe"}, "", "--allow-new-privs: \"maybe\" is neither true nor false\n  it takes: true, false"},
		{[]string{"--max-size", "2GiB"}, "", "--max-size: \"2GiB\" is not a size\n  write it as in 65536, 500KiB or 1MiB; 1024MiB is the most"},
		{[]string{"--max-size", "1025MiB"}, "", "--max-size: \"1025MiB\" is not a size\n  write it as in 65536, 500KiB or 1MiB; 1024MiB is the most"},
		{nil, "SECRET_INIT_USR=app", "SECRET_INIT_USR: unknown option\n  write SECRET_INIT_USER; or look with: secret-init help"},
		{nil, "SECRET_INIT_user=app", "SECRET_INIT_user: unknown option\n  write SECRET_INIT_USER; or look with: secret-init help"},
		{nil, "SECRET_INIT_LOG-LEVEL=info", "SECRET_INIT_LOG-LEVEL: unknown option\n  write SECRET_INIT_LOG_LEVEL; or look with: secret-init help"},
		{nil, "SECRET_INIT_=x", "SECRET_INIT_: unknown option\n  write SECRET_INIT_DIR; or look with: secret-init help"},
		{nil, "SECRET_INIT_USR=", "SECRET_INIT_USR: unknown option\n  write SECRET_INIT_USER; or look with: secret-init help"},
		{nil, "SECRET_INIT_TIMEOUT=x", "SECRET_INIT_TIMEOUT: \"x\" is not a duration\n  write it as in 30s, 2m or 1h30m"},
		// What links inject for a service called secret-init.
		{nil, "SECRET_INIT_SERVICE_HOST=10.0.0.1", ""},
		{nil, "SECRET_INIT_PORT=tcp://10.0.0.1:80", ""},
		{nil, "SECRET_INIT_PORT_80_TCP_ADDR=10.0.0.1", ""},
		{nil, "SECRET_INIT_NAME=/app/secret-init", ""},
		{nil, "SECRET_INIT_ENV_PATH=/bin", ""},
		{nil, "SECRET_INIT_PORTS=x", "SECRET_INIT_PORTS: unknown option\n  write SECRET_INIT_FROM; or look with: secret-init help"},
	}
	for _, test := range tests {
		_, err := world{args: test.args, env: []string{test.env}}.plan()
		if got := said(err); got != test.want {
			t.Errorf("%q %s:\ngot  %s\nwant %s", test.args, test.env, got, test.want)
		}
		if err != nil && sources.ClassOf(err.(Faults)[0].Err) != sources.Invalid {
			t.Errorf("%q %s: not a usage error", test.args, test.env)
		}
	}
}

func TestPlanWithFaultsIsThere(t *testing.T) {
	p, err := world{args: []string{"--what"}, env: []string{"A=sops:f"}}.plan()
	if err == nil || p == nil || p.Timeout == 0 || len(p.Dropped()) != 0 || len(p.Refs()) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = world{env: []string{"A=sops:f", "B=SOPS:g"}}.plan()
	if err == nil || len(p.Secrets) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "65536": 65536, "500KiB": 500 << 10, "1MiB": 1 << 20, "2k": 2048, "3m": 3 << 20, "1024MiB": 1 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "KiB", "1.5MiB", "1 MiB", "99999999999999999999", "1e3"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"vault", "vault", 0}, {"vualt", "vault", 1}, {"valt", "vault", 1}, {"vaults", "vault", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3}} {
		if got := distance(test.a, test.b); got != test.want || distance(test.b, test.a) != test.want {
			t.Errorf("%q, %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
