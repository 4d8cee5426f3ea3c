// Package plan turns the environment, the command line and the config file
// into what is to be done: which documents to fetch, which files and
// variables come of them, whom to run. It is pure: it reads no file, opens
// no connection and changes nothing.
package plan

import (
	"maps"
	"slices"
	"strings"

	"secret-init/sources"
)

// Input is all that a plan is made of.
type Input struct {
	Registry *sources.Registry
	Args     []string
	Environ  []string
	// ReadConfig reads the config file. named is false for the default one,
	// which need not exist: then the content is nil.
	ReadConfig func(path string, named bool) ([]byte, error)
	// ReadFile reads a template, or a secret that was provided and that a
	// template or a variable needs.
	ReadFile func(path string) ([]byte, error)
}

// Plan is one start, before anything is fetched.
type Plan struct {
	Options
	// Secrets have one file each.
	Secrets []Secret
	// From are whole documents whose top-level scalars become secrets.
	From []sources.Ref
	// Credentials are settings of a source that are references themselves.
	Credentials []sources.Credential
	// Command is nil when there was no --.
	Command []string
	// Privileged lists where the config file sets privileges.
	Privileged []string

	registry *sources.Registry
	readFile func(path string) ([]byte, error)
	environ  []variable
	// removed and rewritten are changes to plain variables.
	removed   map[string]bool
	rewritten map[string]string
}

// Secret is one file to deliver.
type Secret struct {
	// Name is the secret's name, and its file's unless Target says otherwise.
	Name string
	// Where is what messages call it: its variable, or its place in the config file.
	Where string
	Value Template
	// Variable gets the file's path; empty for none.
	Variable string
	// Target is a file name, or an absolute path that becomes a link.
	Target string
	// UID and GID are as written; empty for the default owner.
	UID, GID string
	Mode     uint32
	// Expose: Variable gets the value itself, and there is no file.
	Expose bool
	// rendering is set for a template: it has no Value.
	rendering *rendering
	// replaces is the variable that held the reference.
	replaces string
	// configured: an entry of the config file has completed it.
	configured bool
	// provided is the path that NAME_FILE already had, beside NAME=reference.
	provided string
}

// FileName is the secret's name in the directory.
func (s Secret) FileName() string {
	if strings.HasPrefix(s.Target, "/") {
		return s.Name
	}
	return s.Target
}

// Link is the absolute path at which a link is wanted; empty for none.
func (s Secret) Link() string {
	if strings.HasPrefix(s.Target, "/") {
		return s.Target
	}
	return ""
}

// PresetPath is the path that NAME_FILE already had in the environment,
// beside NAME=reference; empty when there was none.
func (s Secret) PresetPath() string { return s.provided }

// Sources are the schemes that the value comes from, each once and sorted;
// "template" for a rendered file.
func (s Secret) Sources() []string {
	if s.rendering != nil {
		return []string{"template"}
	}
	schemes := map[string]bool{}
	for _, ref := range s.Value.Refs() {
		schemes[ref.Scheme] = true
	}
	return slices.Sorted(maps.Keys(schemes))
}

type variable struct{ name, value string }

// New makes a plan, and reports all faults of the input together. The plan
// is never nil: with faults, it holds what could be understood.
func New(in Input) (*Plan, error) {
	cli, command, hasCommand, err := parseArgs(in.Args)
	if err != nil {
		return &Plan{Options: Defaults(), registry: in.Registry}, Faults{{Err: err}}
	}
	in.Environ = firstOnes(in.Environ)
	fromEnv, faults := parseVariables(in.Environ)
	file, configFaults := readConfig(in, cli, fromEnv)
	faults = append(faults, configFaults...)
	options, optionFaults := merge(cli, fromEnv, file.settings)
	faults = append(faults, optionFaults...)

	p := &Plan{Options: options, registry: in.Registry, readFile: in.ReadFile, removed: map[string]bool{}, rewritten: map[string]string{}}
	if hasCommand {
		p.Command = append([]string{}, command...)
	}
	for _, s := range file.settings {
		if s.option.Privileged {
			p.Privileged = append(p.Privileged, s.where)
		}
	}
	for _, v := range in.Environ {
		name, value, _ := strings.Cut(v, "=")
		p.environ = append(p.environ, variable{name, value})
	}
	faults = append(faults, p.parseFrom()...)
	faults = append(faults, p.addSecrets(file.secrets)...)
	faults = append(faults, p.checkTogether()...)
	return p, faults.err()
}

// checkTogether finds options that cannot do what they say beside the others.
func (p *Plan) checkTogether() (faults Faults) {
	stays := p.Stays()
	for _, rule := range []struct {
		broken            bool
		where, what, hint string
	}{
		{len(p.KeepCap) > 0 && p.User == "", "--keep-cap", "there is no drop that a capability could survive", "name the user with --user"},
		{p.SignalGroup && !stays, "--signal-group", "nobody stays to forward a signal", "add --supervise"},
		{p.StopGrace > 0 && !stays, "--stop-grace", "nobody stays to end the command", "add --supervise"},
		{p.Remove.OnReady && p.Ready == "", "--remove", "ready needs to be told when that is", "name a probe: --ready tcp:5432, or notify, http, file, exec"},
		{!p.Remove.Never() && p.Deliver == "memfd", "--remove", "--deliver memfd leaves no file to remove", "leave --remove out"},
		{p.Refresh.On() && !p.Remove.Never(), "--refresh", "a file that --remove has removed cannot be refreshed", "leave --remove or --refresh out"},
		{p.Refresh.On() && p.Deliver == "memfd", "--refresh", "the sealed memory of --deliver memfd cannot change", "use --deliver file"},
		{p.OnChange != "" && !p.Refresh.On(), "--on-change", "nothing is fetched again that could change", "add --refresh 5m"},
	} {
		if rule.broken {
			faults.add(rule.where, sources.Errorf(sources.Invalid, rule.hint, "%s", rule.what))
		}
	}
	for _, s := range p.Secrets {
		if p.Deliver == "memfd" && s.Link() != "" {
			faults.add(s.Where, sources.Errorf(sources.Invalid, "leave target out, or use --deliver file", "a target needs a file, and --deliver memfd makes none"))
		}
	}
	return faults
}

// firstOnes leaves out what getenv(3) would not find: all but the first
// variable of a name, and what is no variable.
func firstOnes(environ []string) (kept []string) {
	seen := map[string]bool{}
	for _, v := range environ {
		name, _, ok := strings.Cut(v, "=")
		if ok && !seen[name] {
			kept = append(kept, v)
		}
		seen[name] = true
	}
	return kept
}

func readConfig(in Input, layers ...[]setting) (config, Faults) {
	options, _ := merge(layers...)
	named := slices.ContainsFunc(slices.Concat(layers...), func(s setting) bool { return s.option.Name == "config" })
	content, err := in.ReadConfig(options.Config, named)
	if err != nil {
		return config{}, Faults{{Where: options.Config, Err: err}}
	}
	return parseConfig(options.Config, content)
}

func (p *Plan) parseFrom() (faults Faults) {
	g := grammar{p.registry, true}
	for _, text := range p.Options.From {
		if wrong, meant := g.nearMiss(text); wrong != "" {
			faults.add("--from", missed(text, wrong, meant))
			continue
		}
		ref, err := p.registry.Parse(text)
		if err == nil && ref.Key != "" {
			err = sources.Errorf(sources.Invalid, "leave the #key out, or give the secret a name in the config file", "%s: a whole document is taken, not one key", text)
		}
		if err != nil {
			faults.add("--from", err)
			continue
		}
		p.From = append(p.From, ref)
	}
	return faults
}

// Refs lists every reference of the plan but the credentials', which are
// fetched only when their source is needed.
func (p *Plan) Refs() []sources.Ref {
	refs := slices.Clone(p.From)
	for _, s := range p.Secrets {
		refs = append(refs, s.Value.Refs()...)
	}
	return refs
}

// schemes are those of every source that is named, fetched from or not.
func (p *Plan) schemes() map[string]bool {
	named := map[string]bool{}
	for _, ref := range p.Refs() {
		named[ref.Scheme] = true
	}
	for _, c := range p.Credentials {
		named[c.Ref.Scheme] = true
	}
	return named
}

// Dropped lists the variables of the environment that the command does not
// get, sorted: references, our own settings, and credentials that only we need.
func (p *Plan) Dropped() []string {
	dropped := map[string]bool{}
	for _, v := range p.environ {
		if p.drops(v.name) {
			dropped[v.name] = true
		}
	}
	return slices.Sorted(maps.Keys(dropped))
}

func (p *Plan) drops(name string) bool {
	if p.removed[name] || matches(p.DropEnv, name) {
		return true
	}
	if matches(p.KeepEnv, name) {
		return false
	}
	return strings.HasPrefix(name, variablePrefix) || p.isOwnCredential(name)
}

// isOwnCredential: a credential that only we need, of a source that is named.
func (p *Plan) isOwnCredential(name string) bool {
	for scheme := range p.schemes() {
		backend, _ := p.registry.Backend(scheme)
		for _, v := range backend.Credentials {
			if v.Name == name && !v.Shared {
				return true
			}
		}
	}
	return false
}

// CredentialFiles are the files that hold a credential of a source that is
// named, by the variables that name them.
func (p *Plan) CredentialFiles() map[string]string {
	files := map[string]string{}
	for scheme := range p.schemes() {
		backend, _ := p.registry.Backend(scheme)
		for _, name := range backend.CredentialFiles {
			if path := p.lookup(name); path != "" {
				files[name] = path
			}
		}
	}
	return files
}

// matches reports whether a name is in a list; * at the end of an entry
// stands for any end.
func matches(list []string, name string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		if prefix, ok := strings.CutSuffix(entry, "*"); ok {
			return strings.HasPrefix(name, prefix)
		}
		return entry == name
	})
}

// identityVariables follow --user: where it has none to give, the old one
// would be somebody else's.
var identityVariables = []string{"HOME", "USER", "LOGNAME"}

// Environ is the command's environment. paths are the files by their
// variables; identity overrides HOME, USER and LOGNAME, and is nil without --user.
func (p *Plan) Environ(paths map[string]string, identity map[string]string) []string {
	var environ []string
	for _, v := range p.environ {
		_, isPath := paths[v.name]
		isIdentity := identity != nil && slices.Contains(identityVariables, v.name)
		if p.drops(v.name) || isPath || isIdentity {
			continue
		}
		value := v.value
		if text, ok := p.rewritten[v.name]; ok {
			value = text
		}
		environ = append(environ, v.name+"="+value)
	}
	for _, set := range []map[string]string{identity, paths} {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			environ = append(environ, name+"="+set[name])
		}
	}
	return environ
}
