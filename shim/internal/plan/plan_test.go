package plan

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"secret-init/sources"
)

const canary = "CANARY-7f3a"

// testRegistry declares what the real one does, as far as a plan can see it.
func testRegistry() *sources.Registry {
	open := func(sources.Settings) (sources.Source, error) { return nil, nil }
	return sources.NewRegistry(
		sources.Backend{Scheme: "aws-sm", Params: []string{"stage"}, Open: open, Credentials: []sources.Variable{{Name: "AWS_SECRET_ACCESS_KEY", Shared: true}}},
		sources.Backend{Scheme: "file", ConfigOnly: true, Open: open},
		sources.Backend{Scheme: "sops", Params: []string{"format"}, Open: open, Credentials: []sources.Variable{{Name: "SOPS_AGE_KEY"}}},
		sources.Backend{Scheme: "vault", Params: []string{"version"}, NeedsSlash: true, Open: open, Credentials: []sources.Variable{{Name: "VAULT_TOKEN"}, {Name: "VAULT_SECRET_ID"}}},
	)
}

// world is the input of one plan.
type world struct {
	args   []string
	env    []string
	config string
}

func (w world) plan() (*Plan, error) {
	return New(Input{
		Registry: testRegistry(), Args: w.args, Environ: w.env,
		ReadConfig: func(string, bool) ([]byte, error) { return []byte(w.config), nil },
	})
}

func (w world) mustPlan(t *testing.T) *Plan {
	t.Helper()
	p, err := w.plan()
	if err != nil {
		t.Fatalf("%v: %v", w, err)
	}
	return p
}

// said is every fault as a user sees it: the line, and its hint below.
func said(err error) string {
	faults, ok := err.(Faults)
	if !ok {
		return ""
	}
	var lines []string
	for _, fault := range faults.Merged() {
		lines = append(lines, fault.Error())
		if hint := sources.HintOf(fault.Err); hint != "" {
			lines = append(lines, "  "+hint)
		}
	}
	return strings.Join(lines, "\n")
}

// row is all that matters of a secret, in one line.
func row(s Secret) string {
	text := strings.Join([]string{s.Where, s.Name, s.FileName(), s.Variable, s.Value.String()}, " | ")
	if s.Link() != "" {
		text += " | link " + s.Link()
	}
	if s.PresetPath() != "" {
		text += " | preset " + s.PresetPath()
	}
	return text
}

func rows(p *Plan) string {
	var lines []string
	for _, s := range p.Secrets {
		lines = append(lines, row(s))
	}
	return strings.Join(lines, "\n")
}

func TestNames(t *testing.T) {
	tests := []struct {
		name   string
		env    []string
		config string
		want   string
	}{
		{"NAME", []string{"DB_PASSWORD=vault:secret/db#p"}, "", "DB_PASSWORD | db_password | db_password | DB_PASSWORD_FILE | vault:secret/db#p"},
		{"NAME_FILE", []string{"DB_FILE=vault:secret/db#p"}, "", "DB_FILE | db | db | DB_FILE | vault:secret/db#p"},
		{"NAME__FILE, not NAME_", []string{"DB__FILE=vault:secret/db#p"}, "", "DB__FILE | db | db | DB__FILE | vault:secret/db#p"},
		{"FILE__NAME", []string{"FILE__DB=vault:secret/db#p"}, "", "FILE__DB | db | db | FILE__DB | vault:secret/db#p"},
		{"no NAME before _FILE", []string{"_FILE=vault:secret/db#p"}, "", "_FILE | _file | _file | _FILE_FILE | vault:secret/db#p"},
		{"a composite", []string{"URL=pg://app:${vault:secret/db#p}@db?x=${sops:f#y}"}, "", "URL | url | url | URL_FILE | vault:secret/db#p, sops:f#y"},
		{"an empty NAME is unset", []string{"DB=", "DB_FILE=vault:secret/db#p"}, "", "DB_FILE | db | db | DB_FILE | vault:secret/db#p"},
		{"an empty NAME_FILE is unset", []string{"DB=vault:secret/db#p", "DB_FILE="}, "", "DB | db | db | DB_FILE | vault:secret/db#p"},
		{"NAME_FILE may name a provided file", []string{"DB=vault:secret/db#p", "DB_FILE=/run/secrets/db"}, "", "DB | db | db | DB_FILE | vault:secret/db#p | preset /run/secrets/db"},
		{"the first of two", []string{"DB=sops:f#1", "DB=sops:f#2"}, "", "DB | db | db | DB_FILE | sops:f#1"},
		{"config, short", nil, "secrets:\n  db: vault:secret/db#p", "C:2:3: db | db | db | DB_FILE | vault:secret/db#p"},
		{"config, file scheme", nil, "secrets:\n  db: file:/x", "C:2:3: db | db | db | DB_FILE | file:/x"},
		{"config, composite", nil, "secrets:\n  db: x${file:/x}", "C:2:3: db | db | db | DB_FILE | file:/x"},
		{"config, long", nil, "secrets:\n  tls-key:\n    from: sops:f#/tls/key\n    env: TLS\n    target: tls.key\n", "C:2:3: tls-key | tls-key | tls.key | TLS | sops:f#/tls/key"},
		{"config, no variable", []string{"DB=x"}, "secrets:\n  db: {from: 'sops:f', env: ''}", "C:2:3: db | db | db |  | sops:f"},
		{"config, absolute target", nil, "secrets:\n  key: {from: 'sops:f', target: /etc/ssl/tls.key}", "C:2:3: key | key | key | KEY_FILE | sops:f | link /etc/ssl/tls.key"},
		{"config, absolute target where files are anyway", nil, "secrets:\n  key: {from: 'sops:f', target: /run/secrets/tls.key}", "C:2:3: key | key | tls.key | KEY_FILE | sops:f"},
		{"config, preset", []string{"DB_FILE=/x"}, "secrets:\n  db: sops:f", "C:2:3: db | db | db | DB_FILE | sops:f | preset /x"},
		{"the environment replaces from", []string{"DB=sops:g"}, "secrets:\n  db: {from: 'sops:f', target: x, env: E}", "DB | db | x | E | sops:g"},
		{"NAME_FILE replaces from, and gets the path", []string{"DB_FILE=sops:g"}, "secrets:\n  db: {from: 'sops:f', env: E}", "DB_FILE | db | db | DB_FILE | sops:g"},
		{"the environment completes an entry", []string{"DB=sops:g"}, "secrets:\n  db: {target: x}", "DB | db | x | DB_FILE | sops:g"},
		{"upper case in the config", []string{"DB=sops:g"}, "secrets:\n  DB: sops:f", "DB | DB | DB | DB_FILE | sops:g"},
		{"a name that is no variable", []string{"DB_P=sops:g"}, "secrets:\n  db-p: sops:f", "DB_P | db-p | db-p | DB_P_FILE | sops:g"},
		{"a plain NAME that is dropped", []string{"DB=x", "SECRET_INIT_DROP_ENV=DB"}, "secrets:\n  db: sops:f", "C:2:3: db | db | db | DB_FILE | sops:f"},
		{"nothing", []string{"A=b"}, "", ""},
	}
	for _, test := range tests {
		p, err := world{env: test.env, config: test.config, args: []string{"--config", "C"}}.plan()
		if got := rows(p); err != nil || got != test.want {
			t.Errorf("%s:\ngot  %s (%v)\nwant %s", test.name, got, err, test.want)
		}
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		env    []string
		config string
		want   string
	}{
		{"both references", []string{"DB=vault:secret/db#p", "DB_FILE=sops:f"}, "", "DB: vault:secret/db#p: both DB and DB_FILE are set, and only one can be meant\n  unset one of them"},
		{"NAME_FILE that is no path", []string{"DB=vault:secret/db#p", "DB_FILE=x"}, "", "DB: vault:secret/db#p: both DB and DB_FILE are set, and only one can be meant\n  unset one of them"},
		{"a plain NAME", []string{"DB=" + canary, "DB_FILE=vault:secret/db#p"}, "", "DB_FILE: vault:secret/db#p: both DB and DB_FILE are set, and only one can be meant\n  unset one of them"},
		{"a plain NAME and NAME__FILE", []string{"DB=" + canary, "DB__FILE=sops:f"}, "", "DB__FILE: sops:f: both DB and DB__FILE are set, and only one can be meant\n  unset one of them"},
		{"a plain NAME and FILE__NAME", []string{"DB=" + canary, "FILE__DB=sops:f"}, "", "FILE__DB: sops:f: both DB and FILE__DB are set, and only one can be meant\n  unset one of them"},
		{"a plain NAME and a config entry", []string{"DB=" + canary}, "secrets:\n  db: sops:f", "C:2:3: db: sops:f: both the config file's db and DB are set, and only one can be meant\n  unset one of them"},
		{"NAME_FILE and a config entry", []string{"DB_FILE=x"}, "secrets:\n  db: sops:f", "C:2:3: db: sops:f: both the config file's db and DB_FILE are set, and only one can be meant\n  unset one of them"},
		{"one file", []string{"DB_FILE=sops:f#a", "DB__FILE=sops:f#b"}, "", "DB_FILE, DB__FILE: two secrets for one name db\n  rename one of them"},
		{"one target", nil, "secrets:\n  a: {from: 'sops:f', target: x}\n  b: {from: 'sops:f', target: x}", "C:2:3: a, C:3:3: b: two secrets for one file x\n  rename one of them"},
		{"one link", nil, "secrets:\n  a: {from: 'sops:f', target: /x}\n  b: {from: 'sops:f', target: /x}", "C:2:3: a, C:3:3: b: two secrets for one link /x\n  rename one of them"},
		{"one variable", nil, "secrets:\n  a-b: sops:f\n  a_b: sops:f", "C:2:3: a-b, C:3:3: a_b: two secrets for one variable A_B_FILE\n  rename one of them"},
		{"two entries for one variable that is set", []string{"DB=sops:f"}, "secrets:\n  DB: sops:f\n  db: sops:g", "DB, C:3:3: db: two secrets for one variable DB_FILE\n  rename one of them"},
		{"no file's name", []string{"A/B=sops:f"}, "", `A/B: "a/b" cannot be the name of a file` + "\n  give it a name in the config file, under secrets:"},
		{"no from", nil, "secrets:\n  db: {mode: '0400'}", "C:2:3: db: has no from\n  add from: REFERENCE, or set DB=REFERENCE"},
		{"one fault, not two", []string{"DB=VAULT:secret/db"}, "secrets:\n  db: {mode: '0400'}", "DB: VAULT:secret/db: a scheme is written in lower case\n  write vault:secret/db; or pass the value on as it is with --literal DB"},
		{"unknown parameter", []string{"DB=vault:secret/db?verson=2#p"}, "", "DB: vault:secret/db?verson=2#p: unknown parameter \"verson\"\n  it takes: version, optional, decode, encode; or pass the value on as it is with --literal DB"},
		{"prefix is for --from", []string{"DB=sops:f?prefix=x"}, "", "DB: sops:f?prefix=x: prefix belongs to --from\n  leave it out, or use --from; or pass the value on as it is with --literal DB"},
		{"config: an ordinary value", nil, "secrets:\n  db: " + canary, "C:2:3: db: from is not a reference\n  write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password"},
		{"config: a URL with a password", nil, "secrets:\n  db: postgres://app:" + canary + "@db", "C:2:3: db: from has the unknown scheme \"postgres\"\n  known schemes: aws-sm, file, sops, vault"},
		{"config: no slash", nil, "secrets:\n  db: vault:db", "C:2:3: db: from is not a reference\n  write a path with a /, as in vault:secret/db#password"},
		{"config: near miss", nil, "secrets:\n  db: flie:/db", "C:2:3: db: flie:/db: the scheme \"flie\" is one letter away from file\n  write file:/db"},
		{"config: only an escape", nil, "secrets:\n  db: x$${sops:f}", "C:2:3: db: from is not a reference\n  write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password"},
		{"a cycle of one", []string{"VAULT_TOKEN=vault:secret/x#t", "A=vault:secret/a"}, "", "VAULT_TOKEN: the sources' credentials need each other: vault needs vault\n  give one of them its credential directly"},
		{"a cycle of two", []string{"VAULT_TOKEN=sops:f#t", "SOPS_AGE_KEY=vault:secret/x#k"}, "", "VAULT_TOKEN: the sources' credentials need each other: sops needs vault needs sops\n  give one of them its credential directly"},
		{"a composite credential", []string{"VAULT_TOKEN=" + canary + "${sops:f#t}", "A=vault:secret/a"}, "", "VAULT_TOKEN: a source's own credential is part of a longer value\n  write VAULT_TOKEN=scheme:path#key, with the whole credential under one key"},
		{"keep-cap alone", []string{"SECRET_INIT_KEEP_CAP=chown"}, "", "--keep-cap: there is no drop that a capability could survive\n  name the user with --user"},
		{"the same document twice", []string{"A=sops:f?x=1", "B=sops:f?x=1"}, "", "A: sops:f?x=1: unknown parameter \"x\"\n  it takes: format, optional, decode, encode; or pass the value on as it is with --literal A\n" +
			"B: sops:f?x=1: unknown parameter \"x\"\n  it takes: format, optional, decode, encode; or pass the value on as it is with --literal B"},
		{"from: a key", []string{"SECRET_INIT_FROM=sops:f#k"}, "", "--from: sops:f#k: a whole document is taken, not one key\n  leave the #key out, or give the secret a name in the config file"},
		{"from: near miss", []string{"SECRET_INIT_FROM=sosp:a/f"}, "", "--from: sosp:a/f: the scheme \"sosp\" is one letter away from sops\n  write sops:a/f"},
		{"from: unknown", []string{"SECRET_INIT_FROM=gcp:f"}, "", "--from: gcp:f: unknown scheme \"gcp\"\n  known schemes: aws-sm, file, sops, vault"},
	}
	for _, test := range tests {
		_, err := world{env: test.env, config: test.config, args: []string{"--config", "C"}}.plan()
		if got := said(err); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestAllFaultsTogether(t *testing.T) {
	_, err := world{
		args:   []string{"--config", "C", "--timeout", "soon"},
		env:    []string{"SECRET_INIT_USR=app", "A=vualt:secret/a", "SECRET_INIT_EXISTING=take"},
		config: "usr: app\ntimeout: x\nsecrets:\n  a:\n    frm: sops:f\n",
	}.plan()
	for _, want := range []string{
		"SECRET_INIT_USR: unknown option", "A: vualt:secret/a: the scheme", "--timeout: \"soon\" is not", "SECRET_INIT_EXISTING: \"take\" is not one of",
		"C:1:1: unknown key \"usr\"", "C:5:5: unknown key \"frm\" in secret a",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	p := world{env: []string{
		"SOPS_AGE_KEY=vault:secret/ci#age", "VAULT_TOKEN=aws-sm:ci#token", "AWS_SECRET_ACCESS_KEY=" + canary, "VAULT_SECRET_ID=x",
		"DB=sops:f#p", "PATH=/bin",
	}}.mustPlan(t)
	if len(p.Credentials) != 2 || p.Credentials[0].Name != "SOPS_AGE_KEY" || p.Credentials[1].Ref.String() != "aws-sm:ci#token" {
		t.Errorf("credentials %v", p.Credentials)
	}
	if got := strings.Join(p.Dropped(), " "); got != "DB SOPS_AGE_KEY VAULT_SECRET_ID VAULT_TOKEN" {
		t.Errorf("dropped: %s", got)
	}
	if rows(p) != "DB | db | db | DB_FILE | sops:f#p" {
		t.Error(rows(p))
	}
	// Of a source that nobody names they are ordinary variables.
	p = world{env: []string{"SOPS_AGE_KEY=vault:secret/ci#age", "VAULT_TOKEN=t", "AWS_SECRET_ACCESS_KEY=x"}}.mustPlan(t)
	if rows(p) != "SOPS_AGE_KEY | sops_age_key | sops_age_key | SOPS_AGE_KEY_FILE | vault:secret/ci#age" || len(p.Credentials) != 0 {
		t.Error(rows(p))
	}
}

func TestEnviron(t *testing.T) {
	env := []string{
		"B=2", "A=1", "DB=vault:secret/db#p", "VAULT_TOKEN=t", "SECRET_INIT_DIR=/d", "HOME=/root", "AWS_REGION=r", "AWS_PROFILE=p",
		"A=again", "ESC=a$${sops:f}", "EMPTY=", "DB_FILE=", "broken", "SECRET_INIT_SERVICE_HOST=h",
	}
	p := world{env: env}.mustPlan(t)
	got := strings.Join(p.Environ(map[string]string{"DB_FILE": "/d/db", "A_FILE": "/d/a"}, map[string]string{"HOME": "/app", "USER": "app"}), " ")
	if want := "B=2 A=1 AWS_REGION=r AWS_PROFILE=p ESC=a${sops:f} EMPTY= HOME=/app USER=app A_FILE=/d/a DB_FILE=/d/db"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p = world{env: env, args: []string{"--keep-env", "VAULT_*,SECRET_INIT_DIR,DB", "--drop-env=AWS_*,B,EMPTY"}}.mustPlan(t)
	got = strings.Join(p.Environ(nil, nil), " ")
	if want := "A=1 VAULT_TOKEN=t SECRET_INIT_DIR=/d HOME=/root ESC=a${sops:f} DB_FILE="; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := (world{env: []string{"A=1"}, args: []string{"--drop-env", "*"}}).mustPlan(t).Environ(nil, nil); len(got) != 0 {
		t.Error(got)
	}
}

func TestLiteral(t *testing.T) {
	p := world{env: []string{"A=vault:secret/a", "B=VAULT:secret/b", "C=x${sops:f}"}, args: []string{"--literal", "A,B", "--literal=C"}}.mustPlan(t)
	if got := strings.Join(p.Environ(nil, nil), " "); rows(p) != "" || got != "A=vault:secret/a B=VAULT:secret/b C=x${sops:f}" {
		t.Errorf("%s, secrets %s", got, rows(p))
	}
}

func TestPrivileged(t *testing.T) {
	p := world{config: "timeout: 1m\nuser: app\nkeep-cap: [chown]\n"}.mustPlan(t)
	if got := strings.Join(p.Privileged, " "); got != "/etc/secret-init.yaml:2:7: user /etc/secret-init.yaml:3:11: keep-cap" {
		t.Error(got)
	}
}

func TestReadConfig(t *testing.T) {
	type asked struct {
		path  string
		named bool
	}
	for want, w := range map[asked]world{
		{DefaultConfig, false}: {},
		{"/a", true}:           {args: []string{"--config=/a"}, env: []string{"SECRET_INIT_CONFIG=/b"}},
		{"/b", true}:           {env: []string{"SECRET_INIT_CONFIG=/b"}},
	} {
		var got asked
		_, err := New(Input{Registry: testRegistry(), Args: w.args, Environ: w.env, ReadConfig: func(path string, named bool) ([]byte, error) {
			got = asked{path, named}
			return nil, sources.Errorf(sources.Invalid, "", "cannot be read")
		}})
		if got != want || err == nil || err.Error() != want.path+": cannot be read" {
			t.Errorf("asked for %v, want %v: %v", got, want, err)
		}
	}
}

// documents is a Lookup over JSON documents by reference.
func documents(t *testing.T, contents map[string]string) Lookup {
	return func(ref sources.Ref) (*sources.Document, error) {
		content, ok := contents[ref.Document().String()]
		if !ok {
			e := sources.Errorf(sources.NotFound, "", "does not exist")
			e.Subject = ref.Name()
			return nil, e
		}
		return &sources.Document{Bytes: []byte(content), Parse: sources.ParseJSON}, nil
	}
}

func TestResolve(t *testing.T) {
	docs := map[string]string{"sops:f": `{"p": "pass word", "n": 1.10, "e": ""}`, "sops:more": `{"a.b": "x", "C": "y"}`, "sops:whole": "x\r\n\x00"}
	skipNone := func(Secret) (string, bool) { return "", false }
	tests := []struct {
		name     string
		w        world
		want     string
		warnings string
	}{
		{"plain", world{env: []string{"A=sops:f#p"}}, "a A_FILE pass word", ""},
		{"exact bytes", world{env: []string{"A=sops:whole"}}, "a A_FILE x\r\n\x00", ""},
		{"composite", world{env: []string{"A=pg://u:${sops:f?encode=url#p}@h/$${sops:x}${sops:f#n}$"}}, "a A_FILE pg://u:pass%20word@h/${sops:x}1.10$", ""},
		{"optional", world{env: []string{"A=sops:none?optional=true", "B=sops:f?optional=true#q", "C=x${sops:none?optional=true}", "D=sops:f#n"}}, "d D_FILE 1.10",
			"A: sops none does not exist: it is optional, so there is no file; B: sops f has no key \"q\": it is optional, so there is no file; C: sops none does not exist: it is optional, so there is no file"},
		{"empty", world{env: []string{"A=sops:f#e"}}, "a A_FILE ", "A: the value is empty"},
		{"from", world{args: []string{"--from", "sops:more?prefix=DB_"}, env: []string{"C=plain", "A_B=plain"}}, "DB_a.b DB_A_B_FILE x; DB_C DB_C_FILE y", ""},
		{"from, a plain NAME_FILE stays", world{args: []string{"--from", "sops:more"}, env: []string{"C_FILE=/x", "C=y"}}, "a.b A_B_FILE x; C  y", "--from sops:more: C: C_FILE is set already, and stays as it is"},
		{"from, optional", world{args: []string{"--from", "sops:none?optional=true,sops:more"}}, "a.b A_B_FILE x; C C_FILE y", "--from: sops none does not exist: it is optional, so nothing is taken from it"},
	}
	for _, test := range tests {
		p := test.w.mustPlan(t)
		deliveries, warnings, err := p.Resolve(documents(t, docs), skipNone)
		var got []string
		for _, d := range deliveries {
			got = append(got, d.FileName()+" "+d.Variable+" "+string(d.Content.Reveal()))
		}
		if text := strings.Join(got, "; "); err != nil || text != test.want || strings.Join(warnings, "; ") != test.warnings {
			t.Errorf("%s:\ngot  %q (%v)\nwant %q\nwarnings %q", test.name, text, err, test.want, warnings)
		}
	}
	p := world{env: []string{"A=sops:none", "B=sops:f#n"}}.mustPlan(t)
	deliveries, _, err := p.Resolve(documents(t, docs), func(s Secret) (string, bool) { return "", s.Name == "a" })
	if err != nil || len(deliveries) != 1 || deliveries[0].Name != "b" {
		t.Errorf("what is provided is read: %v, %v", deliveries, err)
	}
}

func TestResolveFaults(t *testing.T) {
	docs := map[string]string{
		"sops:f": `{"p": "` + canary + `", "long": "` + strings.Repeat("x", 100) + `"}`, "sops:bad": `{"..": "x"}`, "sops:p": `{"p": "` + canary + `"}`,
		"sops:nested": `{"o": {"k": "` + canary + `"}}`, "sops:dots": `{"a.b": "x", "a-b": "y"}`,
	}
	tests := []struct {
		name string
		w    world
		want string
	}{
		{"one document, many secrets", world{env: []string{"A=sops:none#a", "B=sops:none#b"}}, "A, B: sops none does not exist"},
		{"all faults of a composite", world{env: []string{"A=" + canary + "${sops:none#a}${sops:f#q}${sops:none}"}}, "A: sops none does not exist\nA: sops f has no key \"q\"\n  it has: long, p"},
		{"optional and another fault", world{env: []string{"A=${sops:none?optional=true#a}${sops:f#q}"}}, "A: sops f has no key \"q\"\n  it has: long, p"},
		{"too large", world{env: []string{"A=sops:f#long", "SECRET_INIT_MAX_SIZE=99"}}, "A: sops:f#long is larger than --max-size (99 bytes)\n  raise --max-size"},
		{"from: too large", world{env: []string{"SECRET_INIT_FROM=sops:f", "SECRET_INIT_MAX_SIZE=99"}}, "--from sops:f: long: sops:f#long is larger than --max-size (99 bytes)\n  raise --max-size"},
		{"from: missing", world{args: []string{"--from=sops:none"}}, "--from: sops none does not exist"},
		{"from: no file's name", world{args: []string{"--from=sops:bad"}}, "--from: sops bad has a key \"..\", which cannot be the name of a file\n  give it a name in the config file, under secrets:"},
		{"from: nested", world{args: []string{"--from=sops:nested"}}, "--from: sops nested has a nested value at key \"o\"\n  name what you need of it: sops:nested#/o/k"},
		{"from: two documents", world{args: []string{"--from=sops:f,sops:p"}}, "--from sops:f: p, --from sops:p: p: two secrets for one name p\n  rename one of them"},
		{"from: two keys, one variable", world{args: []string{"--from=sops:dots"}}, "--from sops:dots: a.b, --from sops:dots: a-b: two secrets for one variable A_B_FILE\n  rename one of them"},
		{"from and the environment", world{args: []string{"--from=sops:p"}, env: []string{"P=sops:p#p"}}, "P, --from sops:p: p: two secrets for one name p\n  rename one of them"},
		{"from and a config entry that has another file", world{args: []string{"--from=sops:p"}, config: "secrets:\n  p: {from: 'sops:f#p', target: q, env: Q}"}, "/etc/secret-init.yaml:2:3: p, --from sops:p: p: two secrets for one name p\n  rename one of them"},
	}
	for _, test := range tests {
		p := test.w.mustPlan(t)
		_, _, err := p.Resolve(documents(t, docs), func(Secret) (string, bool) { return "", false })
		if got := said(err); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestResolveGivesTheRestBesideFaults(t *testing.T) {
	p := world{env: []string{"A=sops:f#a", "B=sops:f#b", "C=sops:f#c", "SECRET_INIT_MAX_SIZE=3"}}.mustPlan(t)
	nowhere := func(Secret) (string, bool) { return "", false }
	deliveries, _, err := p.Resolve(documents(t, map[string]string{"sops:f": `{"a": "abc", "b": "abcd"}`}), nowhere)
	if len(deliveries) != 1 || deliveries[0].Name != "a" || err == nil || len(err.(Faults)) != 2 {
		t.Errorf("%v, %v", deliveries, err)
	}
}

func TestRefs(t *testing.T) {
	p := world{env: []string{"A=sops:f#a", "B=${sops:f#b}${aws-sm:g}", "VAULT_TOKEN=sops:t", "C=vault:secret/c"}, args: []string{"--from", "sops:all"}}.mustPlan(t)
	var got []string
	for _, ref := range p.Refs() {
		got = append(got, ref.String())
	}
	if text := strings.Join(got, " "); text != "sops:all sops:f#a sops:f#b aws-sm:g vault:secret/c" {
		t.Error(text)
	}
	if got := slices.Sorted(maps.Keys(p.schemes())); strings.Join(got, " ") != "aws-sm sops vault" {
		t.Error(got)
	}
}

func TestBothSet(t *testing.T) {
	p := world{env: []string{"DB=sops:f", "DB_FILE=/x"}}.mustPlan(t)
	if got := p.Secrets[0].BothSet().Error(); got != "DB: sops:f: both DB and DB_FILE are set, and only one can be meant" {
		t.Error(got)
	}
}

func TestMerged(t *testing.T) {
	same := sources.Errorf(sources.NotFound, "", "gone")
	faults := Faults{{"", same}, {"A", same}, {"B", same}, {"A, C", same}, {"", context.Canceled}}
	if got := faults.Error(); got != "A, B, C: gone\ncontext canceled" {
		t.Error(got)
	}
}
