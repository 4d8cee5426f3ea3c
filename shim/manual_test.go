package main

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"secret-init/docs"
	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/stay"
	"secret-init/sources/all"
)

// section is what stands in the manual under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(docs.Manual, "\n# "+heading+"\n")
	if !ok {
		t.Fatalf("the manual has no section %s", heading)
	}
	text, _, _ = strings.Cut(text, "\n# ")
	return text
}

// manualOption is the line of an option: its name, its value, its variable,
// its key in the config file and its default.
var manualOption = regexp.MustCompile("(?m)^\\*\\*--([a-z-]+)\\*\\*( \\*[A-Z]+\\*.*)?, `(SECRET_INIT_[A-Z_]+)`(?:, `([a-z-]+):`)?(?:; default `(.*)`)?$")

func TestManualHasTheOptions(t *testing.T) {
	var documented []string
	defaults := map[string]string{}
	for _, m := range manualOption.FindAllStringSubmatch(section(t, "OPTIONS"), -1) {
		name, value, variable, key := m[1], m[2], m[3], m[4]
		documented = append(documented, name)
		defaults[name] = m[5]
		i := slices.IndexFunc(plan.Table, func(o plan.Option) bool { return o.Name == name })
		if i < 0 {
			t.Errorf("--%s is in the manual, and is no option", name)
			continue
		}
		option := plan.Table[i]
		if variable != option.Variable() {
			t.Errorf("--%s: the variable is %s, not %s", name, option.Variable(), variable)
		}
		if key != name && name != "config" {
			t.Errorf("--%s: the key is not %q", name, key)
		}
		if option.Flag != (value == "") {
			t.Errorf("--%s: flag %t, and the manual has %q", name, option.Flag, value)
		}
	}
	var known []string
	for _, option := range plan.Table {
		known = append(known, option.Name)
	}
	if !slices.Equal(documented, known) {
		t.Errorf("in the manual: %v\nin the table:  %v", documented, known)
	}
	checkDefaults(t, defaults)
}

// checkDefaults: an option that is set to the default that the manual names
// is as if nobody had set it, and no other has one.
func checkDefaults(t *testing.T, defaults map[string]string) {
	t.Helper()
	for name, value := range defaults {
		if value == "" || name == "on-change" {
			continue
		}
		got := optionsOf(t, "--"+name+"="+value)
		if !reflect.DeepEqual(got, plan.Defaults()) {
			t.Errorf("--%s=%s is not the default:\n%+v\n%+v", name, value, got, plan.Defaults())
		}
	}
	fields := reflect.ValueOf(plan.Defaults())
	for i := range fields.NumField() {
		if name := kebab(fields.Type().Field(i).Name); !fields.Field(i).IsZero() && defaults[name] == "" {
			t.Errorf("--%s has a default, and the manual does not tell it", name)
		}
	}
	var d stay.Duty
	s := &startup{plan: &plan.Plan{Options: optionsOf(t, "--refresh=5m")}}
	s.planRefresh(&d)
	if defaults["on-change"] != "HUP" || d.Refresh.Signal != syscall.SIGHUP {
		t.Errorf("--on-change: %v, and the manual says %q", d.Refresh.Signal, defaults["on-change"])
	}
}

func optionsOf(t *testing.T, args ...string) plan.Options {
	t.Helper()
	p, err := plan.New(plan.Input{
		Registry: all.Registry(), Args: args,
		ReadConfig: func(string, bool) ([]byte, error) { return nil, nil },
	})
	if err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return p.Options
}

// kebab is max-size for MaxSize.
func kebab(field string) string {
	var b strings.Builder
	for i, c := range field {
		if unicode.IsUpper(c) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

func TestManualHasTheExitCodes(t *testing.T) {
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\*\*(.+)\*\*\n:`).FindAllStringSubmatch(section(t, "EXIT CODES"), -1) {
		documented = append(documented, m[1])
	}
	known := []string{"128+n", strconv.Itoa(exitBug)}
	for _, code := range precedence {
		known = append(known, strconv.Itoa(code))
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("in the manual: %v\nin the code:   %v", documented, known)
	}
	if exitSignal != 128 {
		t.Errorf("%d+n", exitSignal)
	}
	var first []string
	for _, code := range precedence[:4] {
		first = append(first, strconv.Itoa(code))
	}
	if order := strings.Join(first, ", "); !strings.Contains(section(t, "EXIT CODES"), "first of "+order) {
		t.Errorf("the manual does not say that the first of %s counts", order)
	}
}

var manualScheme = regexp.MustCompile(`^\*\*([a-z-]+):\*\*\*[a-z]+\*\n: `)

// The schemes, their parameters, and the variables with credentials.
func TestManualHasTheSources(t *testing.T) {
	var documented, known []string
	params := map[string]string{}
	for _, entry := range strings.Split(section(t, "REFERENCES"), "\n\n") {
		m := manualScheme.FindStringSubmatch(entry)
		if m == nil {
			continue
		}
		documented = append(documented, m[1])
		_, list, _ := strings.Cut(strings.ReplaceAll(entry, "\n", " "), "Parameters: ")
		params[m[1]] = strings.TrimSuffix(strings.ReplaceAll(list, "`", ""), ".")
	}
	for _, backend := range all.Registry().Backends() {
		known = append(known, backend.Scheme)
		if want := strings.Join(backend.Params, ", "); params[backend.Scheme] != want {
			t.Errorf("%s takes %q, not %q", backend.Scheme, want, params[backend.Scheme])
		}
		names := slices.Clone(backend.CredentialFiles)
		for _, v := range backend.Credentials {
			names = append(names, v.Name)
			if inherits := section(t, "WHAT THE COMMAND INHERITS"); strings.Contains(inherits, "`"+v.Name+"`") == v.Shared {
				t.Errorf("%s: shared is %t, and the manual says otherwise", v.Name, v.Shared)
			}
		}
		for _, name := range names {
			if !strings.Contains(section(t, "ENVIRONMENT"), "`"+name+"`") {
				t.Errorf("%s is not in the manual", name)
			}
		}
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("in the manual: %v\nin the table:  %v", documented, known)
	}
}

func TestManualHasTheConfigKeys(t *testing.T) {
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^(\*\*[a-z*, ]+\*\*)\n:`).FindAllStringSubmatch(section(t, "CONFIG FILE"), -1) {
		documented = append(documented, strings.Split(strings.ReplaceAll(m[1], "*", ""), ", ")...)
	}
	secret, template := plan.ConfigKeys()
	known := slices.Concat(secret, template)
	slices.Sort(documented)
	slices.Sort(known)
	if known = slices.Compact(known); !slices.Equal(documented, known) {
		t.Errorf("in the manual: %v\nin the code:   %v", documented, known)
	}
}

// What check has of its own, it takes, and help knows.
func TestManualHasTheCommands(t *testing.T) {
	synopsis := regexp.MustCompile(`\\?\*`).ReplaceAllString(section(t, "SYNOPSIS"), "")
	for _, line := range strings.Split(usage, "\n")[1:6] {
		words := strings.Fields(line)
		if !strings.Contains(synopsis, strings.Join(words[:2], " ")) {
			t.Errorf("%q is not in the synopsis", line)
		}
	}
	own, rest, err := checkOptions([]string{"--format", "json", "--offline", "--dir", "/x", "--", "--offline"})
	if err != nil || !own.json || !own.offline || !slices.Equal(rest, []string{"--dir", "/x", "--", "--offline"}) {
		t.Errorf("%+v, %q, %v", own, rest, err)
	}
	if helpText([]string{"--all"}) != docs.Manual {
		t.Error("help --all does not print the manual")
	}
}
