package plan

import (
	"fmt"
	"strings"
	"testing"

	"secret-init/sources"
)

func TestParseConfig(t *testing.T) {
	parsed, faults := parseConfig("C", []byte(`# comment
user: app
from: [sops:a, "sops:b"]
allow-new-privs: true
max-size: 65536
secrets:
  short: sops:f#a
  long: &long
    from: sops:f#b
    env: LONG
    target: /etc/long
    uid: app
    gid: 1000
    mode: 0440
  alias: {from: "sops:f", mode: "0400"}
  none:
`))
	if faults != nil {
		t.Fatal(faults)
	}
	var settings []string
	for _, s := range parsed.settings {
		settings = append(settings, s.option.Name+"="+s.value)
	}
	if got := strings.Join(settings, " "); got != "user=app from=sops:a,sops:b allow-new-privs=true max-size=65536" {
		t.Error(got)
	}
	var secrets []string
	for _, s := range parsed.secrets {
		env := "default"
		if s.env != nil {
			env = *s.env
		}
		secrets = append(secrets, fmt.Sprintf("%s %s from=%s env=%s target=%s uid=%s gid=%s %04o", s.where, s.name, s.from, env, s.target, s.uid, s.gid, s.mode))
	}
	want := `C:7:3 short from=sops:f#a env=default target=short uid= gid= 0400
C:8:3 long from=sops:f#b env=LONG target=/etc/long uid=app gid=1000 0440
C:15:3 alias from=sops:f env=default target=alias uid= gid= 0400
C:16:3 none from= env=default target=none uid= gid= 0400`
	if got := strings.Join(secrets, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseConfigFaults(t *testing.T) {
	tests := []struct{ content, want string }{
		{"", ""},
		{"# nothing\n", ""},
		{"secrets:\n", ""},
		{"usr: app", "C:1:1: unknown key \"usr\"\n  write user; or look with: secret-init help"},
		{"config: /x", "C:1:1: a config file cannot name another\n  name it with --config or SECRET_INIT_CONFIG"},
		{"secret:\n  a: b", "C:1:1: unknown key \"secret\"\n  write secrets; or look with: secret-init help"},
		{"user: [a, {b: c}]", "C:1:7: user is neither a value nor a list of values\n  write user: VALUE, or user: [VALUE, VALUE]"},
		{"user: {a: b}", "C:1:7: user is neither a value nor a list of values\n  write user: VALUE, or user: [VALUE, VALUE]"},
		{"user:", "C:1:6: user is neither a value nor a list of values\n  write user: VALUE, or user: [VALUE, VALUE]"},
		{"user: a\nuser: b", "C:2:1: key \"user\" is given twice\n  leave one of them out"},
		{"- a", "C:1:1: the file is not a mapping\n  write key: value"},
		{"secrets: [a]", "C:1:10: secrets is not a mapping\n  write key: value"},
		{"secrets:\n  a: [x]", "C:2:6: secret a is not a mapping\n  write key: value"},
		{"secrets:\n  ../a: sops:f", "C:2:3: \"../a\" cannot be the name of a file\n  write a name without a slash, that does not begin with .secret-init"},
		{"secrets:\n  .secret-init: sops:f", "C:2:3: \".secret-init\" cannot be the name of a file\n  write a name without a slash, that does not begin with .secret-init"},
		{"secrets:\n  a:\n    from: sops:f\n    modes: x\n    from: y", "C:4:5: unknown key \"modes\" in secret a\n  write mode; or write one of: from, expose, env, target, uid, gid, mode\nC:5:5: key \"from\" is given twice\n  leave one of them out"},
		{"secrets:\n  a: {from: [x]}", "C:2:13: from is not one value\n  write from: VALUE"},
		{"secrets:\n  a: {mode: 440}", "C:2:13: mode \"440\" is not octal with a leading zero\n  write mode: \"0400\""},
		{"secrets:\n  a: {mode: 0480}", "C:2:13: mode \"0480\" is not octal with a leading zero\n  write mode: \"0400\""},
		{"secrets:\n  a: {mode: 04755}", "C:2:13: mode \"04755\" is not octal with a leading zero\n  write mode: \"0400\""},
		{"secrets:\n  a: {env: A=B}", "C:2:12: \"A=B\" cannot be the name of a variable\n  write a name without =, or \"\" for no variable"},
		{"secrets:\n  a: {target: b/c}", "C:2:15: target \"b/c\" is neither a file name nor an absolute path\n  write a name without a slash, or a path from the root"},
		{"secrets:\n  a: {target: /b/../c}", "C:2:15: target \"/b/../c\" is neither a file name nor an absolute path\n  write a name without a slash, or a path from the root"},
		{"secrets:\n  a: {target: /}", "C:2:15: target \"/\" is neither a file name nor an absolute path\n  write a name without a slash, or a path from the root"},
		{"user: a\n---\nuser: b", "C: has more than one YAML document\n  leave the line --- out"},
		{"user: app\nsecrets:\n  db: *" + canary, "C:3:7: is not valid YAML: a * stands for an anchor, and there is none of that name\n  check that line's quotes, blanks and colons"},
		{"user: app\nsecrets:\n  db: \"" + canary + "\n", "C:3:3: is not valid YAML: found unexpected end of stream\n  check that line's quotes, blanks and colons"},
		{"user: app\nfrom: \"a\n  b\"\nsecrets:\n  db: \"" + canary + "\nuser: app\n", "C:5:3: is not valid YAML: found unexpected end of stream\n  check that line's quotes, blanks and colons"},
		{"user: app\n\tdir: /x\n", "C:2:2: is not valid YAML: found a tab character that violates indentation\n  check that line's quotes, blanks and colons"},
		{"user: app\nsecrets:\n  - b\n - c\n", "C:4:2: is not valid YAML: did not find expected key\n  check that line's quotes, blanks and colons"},
		{"user: app\ndir: @" + canary, "C:2:1: is not valid YAML: found character that cannot start any token\n  check that line's quotes, blanks and colons"},
		{"a: b: " + canary, "C:1:1: is not valid YAML: mapping values are not allowed in this context\n  check that line's quotes, blanks and colons"},
		{"\xff", "C:1:1: is not valid YAML: invalid leading UTF-8 octet\n  check that line's quotes, blanks and colons"},
	}
	for _, test := range tests {
		_, faults := parseConfig("C", []byte(test.content))
		if got := said(faults); got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.content, got, test.want)
		}
	}
}

func TestVariableFor(t *testing.T) {
	for name, want := range map[string]string{"db_password": "DB_PASSWORD", "tls.key-2": "TLS_KEY_2", "A1": "A1", "é": "_"} {
		if got := variableFor(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// FuzzParseConfig: no input panics, faults have a position, and what is
// accepted keeps its promises.
func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		"user: app\nsecrets:\n  a: {from: sops:f, mode: 0440}\n", "secrets: &a\n  x: *a\n", "a: *b", "? [a]\n: b", "<<: {user: x}", "- [", "\xff", "--- a\n--- b", "user: !!null ''", "%YAML 1.9",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		parsed, faults := parseConfig("C", content)
		for _, fault := range faults {
			if !strings.HasPrefix(fault.Where, "C") || fault.Err == nil || sources.ClassOf(fault.Err) != sources.Invalid {
				t.Fatalf("fault %v", fault)
			}
		}
		if faults != nil {
			return
		}
		for _, s := range parsed.secrets {
			if !validFileName(s.name) || s.mode > 0o777 || s.target == "" {
				t.Fatalf("%q gives %+v", content, s)
			}
		}
	})
}
