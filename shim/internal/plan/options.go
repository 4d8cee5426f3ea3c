package plan

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/sources"
)

// Options are the program's settings, after the command line, the
// environment and the config file have been merged, in that order.
type Options struct {
	Config        string
	From          []string
	Literal       []string
	Dir           string
	User          string
	Owner         string
	KeepCap       []string
	AllowNewPrivs bool
	KeepEnv       []string
	DropEnv       []string
	Existing      string
	Deliver       string
	MaxSize       int64 // bytes
	Timeout       time.Duration
	Supervise     bool
	SignalGroup   bool
	StopGrace     time.Duration // zero for none
	Remove        Removal
	Ready         string // a probe, as supervise.ParseProbe reads it; empty for none
	ReadyTimeout  time.Duration
	Refresh       Refresh
	OnChange      string // a signal's name ("HUP"), restart or none; empty when nobody has set it
	LogLevel      string
	LogFormat     string
}

// Removal is when the files are removed: never, unless one of the two is set.
type Removal struct {
	// OnReady: when the probe says that startup has finished.
	OnReady bool
	// After is counted from the start of the command.
	After time.Duration
}

// Never reports whether the files stay until the command ends.
func (r Removal) Never() bool { return r == Removal{} }

// Refresh is when values are fetched again: never, unless one of the two is set.
type Refresh struct {
	// Every is the interval.
	Every time.Duration
	// Leases: when a lease asks for it.
	Leases bool
}

// On reports whether anything is fetched again.
func (r Refresh) On() bool { return r != Refresh{} }

// Stays reports whether something is left to do once the command runs.
func (o Options) Stays() bool { return o.Supervise || !o.Remove.Never() || o.Refresh.On() }

// Words of --on-change beside the signals.
const (
	OnChangeRestart = "restart"
	OnChangeNone    = "none"
)

// DefaultConfig is read where it exists, without being named.
const DefaultConfig = "/etc/secret-init.yaml"

// Defaults are the options that nobody has set.
func Defaults() Options {
	return Options{
		Config: DefaultConfig, Dir: "/run/secrets", Existing: "use", Deliver: "file", MaxSize: 500 << 10,
		Timeout: 30 * time.Second, ReadyTimeout: 2 * time.Minute, LogLevel: "warn", LogFormat: "text",
	}
}

// Option is one row of the table from which the command line, the
// environment, the config file and the manual are all checked.
type Option struct {
	Name string
	// Flag: it takes no value on the command line.
	Flag bool
	// Privileged: in a config file only root may have written it.
	Privileged bool
	set        func(o *Options, value string) error
}

// Table lists the options in the order of the manual.
var Table = []Option{
	{Name: "config", set: text(func(o *Options) *string { return &o.Config })},
	{Name: "from", set: list(func(o *Options) *[]string { return &o.From })},
	{Name: "literal", set: list(func(o *Options) *[]string { return &o.Literal })},
	{Name: "dir", set: func(o *Options, v string) error {
		if !filepath.IsAbs(v) || filepath.Clean(v) == "/" {
			return invalid("write it from the root, as in /run/secrets", "%q is not an absolute path below the root", v)
		}
		o.Dir = filepath.Clean(v)
		return nil
	}},
	{Name: "user", Privileged: true, set: text(func(o *Options) *string { return &o.User })},
	{Name: "owner", Privileged: true, set: text(func(o *Options) *string { return &o.Owner })},
	{Name: "keep-cap", Privileged: true, set: list(func(o *Options) *[]string { return &o.KeepCap })},
	{Name: "allow-new-privs", Flag: true, Privileged: true, set: flag(func(o *Options) *bool { return &o.AllowNewPrivs })},
	{Name: "keep-env", set: list(func(o *Options) *[]string { return &o.KeepEnv })},
	{Name: "drop-env", set: list(func(o *Options) *[]string { return &o.DropEnv })},
	{Name: "existing", set: word(func(o *Options) *string { return &o.Existing }, "use", "replace", "error")},
	{Name: "deliver", set: word(func(o *Options) *string { return &o.Deliver }, "file", "memfd")},
	{Name: "max-size", set: func(o *Options, v string) (err error) { o.MaxSize, err = parseSize(v); return err }},
	{Name: "timeout", set: func(o *Options, v string) (err error) { o.Timeout, err = parseDuration(v); return err }},
	{Name: "supervise", Flag: true, set: flag(func(o *Options) *bool { return &o.Supervise })},
	{Name: "signal-group", Flag: true, set: flag(func(o *Options) *bool { return &o.SignalGroup })},
	{Name: "stop-grace", set: func(o *Options, v string) (err error) { o.StopGrace, err = parseDuration(v); return err }},
	{Name: "remove", set: func(o *Options, v string) (err error) { o.Remove, err = parseRemoval(v); return err }},
	// An exec probe runs whatever the config file says, as the command's user.
	{Name: "ready", Privileged: true, set: text(func(o *Options) *string { return &o.Ready })},
	{Name: "ready-timeout", set: func(o *Options, v string) (err error) { o.ReadyTimeout, err = parseDuration(v); return err }},
	{Name: "refresh", set: func(o *Options, v string) (err error) { o.Refresh, err = parseRefresh(v); return err }},
	{Name: "on-change", set: func(o *Options, v string) (err error) { o.OnChange, err = parseOnChange(v); return err }},
	{Name: "log-level", set: word(func(o *Options) *string { return &o.LogLevel }, "error", "warn", "info", "debug")},
	{Name: "log-format", set: word(func(o *Options) *string { return &o.LogFormat }, "text", "json")},
}

// Variable is the option's name in the environment.
func (o Option) Variable() string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

const variablePrefix = "SECRET_INIT_"

func findOption(name string) (Option, bool) {
	i := slices.IndexFunc(Table, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return Option{}, false
	}
	return Table[i], true
}

// text refuses an empty value: --user "$APP" must not run as root when APP is unset.
func text(field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error {
		if v == "" {
			return errEmpty()
		}
		*field(o) = v
		return nil
	}
}

func list(field func(*Options) *[]string) func(*Options, string) error {
	return func(o *Options, v string) error {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*field(o) = append(*field(o), item)
			}
		}
		return nil
	}
}

func flag(field func(*Options) *bool) func(*Options, string) error {
	return func(o *Options, v string) error {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return invalid("it takes: true, false", "%q is neither true nor false", v)
		}
		*field(o) = on
		return nil
	}
}

func word(field func(*Options) *string, known ...string) func(*Options, string) error {
	return func(o *Options, v string) error {
		if !slices.Contains(known, v) {
			return invalid("it takes: "+strings.Join(known, ", "), "%q is not one of its words", v)
		}
		*field(o) = v
		return nil
	}
}

func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, invalid(hintDuration, "%q is not a duration", v)
	}
	return d, nil
}

func parseRemoval(v string) (Removal, error) {
	switch v {
	case "never":
		return Removal{}, nil
	case "ready":
		return Removal{OnReady: true}, nil
	}
	after, err := parseDuration(v)
	if err != nil {
		return Removal{}, invalid("it takes: never, ready, or a duration as in 30s, 2m or 1h30m", "%q is neither never, ready nor a duration", v)
	}
	return Removal{After: after}, nil
}

func parseRefresh(v string) (Refresh, error) {
	if v == "lease" {
		return Refresh{Leases: true}, nil
	}
	every, err := parseDuration(v)
	if err != nil {
		return Refresh{}, invalid("it takes: lease, or a duration as in 30s, 2m or 1h30m", "%q is neither lease nor a duration", v)
	}
	return Refresh{Every: every}, nil
}

// parseOnChange takes a signal with or without its SIG. KILL and STOP, which
// nobody can catch, would never be sent.
func parseOnChange(v string) (string, error) {
	if v == OnChangeRestart || v == OnChangeNone {
		return v, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(v), "SIG")
	switch signal := unix.SignalNum("SIG" + name); signal {
	case 0, unix.SIGKILL, unix.SIGSTOP:
		return "", invalid("it takes: restart, none, or a signal as in HUP or USR1", "%q is neither restart, none nor a signal that can be caught", v)
	}
	return name, nil
}

func parseSize(v string) (int64, error) {
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"k", 1 << 10}, {"m", 1 << 20}, {"", 1}}
	for _, unit := range units {
		digits, ok := strings.CutSuffix(v, unit.suffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n > 0 && n <= 1<<30/unit.factor {
			return n * unit.factor, nil
		}
		break
	}
	return 0, invalid("write it as in 65536, 500KiB or 1MiB; 1024MiB is the most", "%q is not a size", v)
}

// setting is one option as somebody wrote it.
type setting struct {
	option Option
	value  string
	where  string // "--timeout", "SECRET_INIT_TIMEOUT", "/etc/secret-init.yaml:3:10: timeout"
}

// parseArgs splits the command line at --. Every option is --name VALUE or
// --name=VALUE.
func parseArgs(args []string) (settings []setting, command []string, hasCommand bool, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return settings, args, true, nil
		}
		name, value, hasValue := strings.Cut(arg, "=")
		if !strings.HasPrefix(name, "-") {
			return nil, nil, false, invalid("write -- before the command: secret-init [OPTION...] -- COMMAND", "unexpected argument %q", arg)
		}
		option, ok := findOption(strings.TrimPrefix(name, "--"))
		if !ok {
			return nil, nil, false, UnknownOption(name)
		}
		switch {
		case hasValue:
		case option.Flag:
			value = "true"
		case len(args) == 0 || strings.HasPrefix(args[0], "--"):
			return nil, nil, false, invalid("write "+name+"=VALUE", "%s needs a value", name)
		default:
			value, args = args[0], args[1:]
		}
		settings = append(settings, setting{option, value, name})
	}
	return settings, nil, false, nil
}

// parseVariables finds the SECRET_INIT_* variables. What Docker links and
// Kubernetes service links inject for a service called secret-init is not
// ours; any other unknown name is an error.
func parseVariables(environ []string) (settings []setting, faults Faults) {
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, variablePrefix)
		if !ours || isServiceLink(rest) {
			continue
		}
		i := slices.IndexFunc(Table, func(o Option) bool { return o.Variable() == name })
		if i < 0 {
			var known []string
			for _, o := range Table {
				known = append(known, o.Variable())
			}
			faults.add(name, invalid(suggest("", strings.ToUpper(name), known, "look with: secret-init help"), "unknown option"))
			continue
		}
		if value != "" {
			settings = append(settings, setting{Table[i], value, name})
		}
	}
	return settings, faults
}

func isServiceLink(rest string) bool {
	return rest == "PORT" || rest == "NAME" || strings.HasPrefix(rest, "SERVICE_") ||
		strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "ENV_")
}

// merge applies layers, the strongest first: an option that a stronger layer
// sets is taken from there alone.
func merge(layers ...[]setting) (Options, Faults) {
	options := Defaults()
	var faults Faults
	done := map[string]bool{}
	for _, layer := range layers {
		for _, s := range layer {
			if done[s.option.Name] {
				continue
			}
			if err := s.option.set(&options, s.value); err != nil {
				if s.value == "" {
					err = errEmpty()
				}
				faults.add(s.where, err)
			}
		}
		for _, s := range layer {
			done[s.option.Name] = true
		}
	}
	return options, faults
}

func optionNames() []string {
	var names []string
	for _, o := range Table {
		names = append(names, o.Name)
	}
	return names
}

// HasOption reports whether there is an option of that name.
func HasOption(name string) bool {
	_, ok := findOption(name)
	return ok
}

// UnknownOption is the error for an option, as it was written, that there is
// not. more are the names of those that a command has of its own.
func UnknownOption(written string, more ...string) error {
	return invalid(suggest("--", strings.TrimLeft(written, "-"), append(optionNames(), more...), "look with: secret-init help"), "unknown option %s", written)
}

const hintDuration = "write it as in 30s, 2m or 1h30m"

func invalid(hint, format string, args ...any) error {
	return sources.Errorf(sources.Invalid, hint, format, args...)
}

func errEmpty() error { return invalid("leave it out for the default", "the value is empty") }

// suggest is the hint for an unknown name: the nearest known one, and where
// they all are.
func suggest(prefix, name string, known []string, otherwise string) string {
	best := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, best) <= max(3, len(best)/3) {
		return "write " + prefix + best + "; or " + otherwise
	}
	return otherwise
}

// distance counts the letters to change, insert, remove or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
