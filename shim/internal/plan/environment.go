package plan

import (
	"path/filepath"
	"slices"
	"strings"

	"secret-init/sources"
)

// The spellings of "the path is in this variable", the longest first.
var fileForms = []struct{ prefix, suffix string }{
	{"FILE__", ""}, {"", "__FILE"}, {"", "_FILE"},
}

// splitName takes a variable apart: DB__FILE is the secret DB, and itself
// the variable that gets the path; DB gets DB_FILE.
func splitName(name string) (base, pathVariable string) {
	for _, form := range fileForms {
		if inner, ok := strings.CutPrefix(name, form.prefix); ok {
			if inner, ok := strings.CutSuffix(inner, form.suffix); ok && inner != "" {
				return inner, name
			}
		}
	}
	return name, name + "_FILE"
}

// addSecrets fills in Secrets, Credentials, removed and rewritten from the
// environment and the config file's entries.
func (p *Plan) addSecrets(entries []configSecret) Faults {
	found, faults := p.scan()
	unclear := map[string]bool{}
	for _, fault := range faults {
		unclear[fault.Where] = true
	}
	templates := p.parseEntries(entries, &faults)
	found = p.takeCredentials(found, templates, &faults)
	for _, f := range found {
		s, err := p.fromVariable(f)
		if err != nil {
			faults.add(f.name, err)
			continue
		}
		p.Secrets = append(p.Secrets, s)
	}
	for i, entry := range entries {
		p.addEntry(entry, templates[i], unclear, &faults)
	}
	var clear []Secret
	for _, s := range p.Secrets {
		if dir, name := filepath.Split(s.Target); filepath.Clean(dir) == p.Dir && validFileName(name) {
			// There the file itself stands, where a link to it would go.
			s.Target = name
		}
		if err := p.checkPreset(&s); err != nil {
			faults.add(s.Where, err)
			continue
		}
		clear = append(clear, s)
	}
	p.Secrets = clear
	checkCollisions(clear, &faults)
	return faults
}

// scanned is a variable whose value is a reference or a composite.
type scanned struct {
	name  string
	value Template
}

// scan finds the references in the environment.
func (p *Plan) scan() (found []scanned, faults Faults) {
	g := grammar{registry: p.registry}
	for _, v := range p.environ {
		if strings.HasPrefix(v.name, variablePrefix) || slices.Contains(p.Literal, v.name) {
			continue
		}
		t, err := g.parse(v.value)
		if err != nil {
			e := *err.(*sources.Error)
			e.Hint = strings.TrimPrefix(e.Hint+"; or pass the value on as it is with --literal "+v.name, "; ")
			faults.add(v.name, &e)
			continue
		}
		switch {
		case t == nil:
		case len(t.Refs()) == 0:
			// Only escapes: the value stays a plain one.
			p.rewritten[v.name] = t[0].Literal
		default:
			found = append(found, scanned{v.name, t})
		}
	}
	return found, faults
}

// takeCredentials moves those variables out of found that are a credential of
// a source which anything here names.
func (p *Plan) takeCredentials(found []scanned, entries []Template, faults *Faults) (rest []scanned) {
	named := p.schemes()
	all := slices.Clone(entries)
	for _, f := range found {
		all = append(all, f.value)
	}
	for _, t := range all {
		for _, ref := range t.Refs() {
			named[ref.Scheme] = true
		}
	}
	for _, f := range found {
		if !p.credentialOf(f.name, named) {
			rest = append(rest, f)
			continue
		}
		p.removed[f.name] = true
		if len(f.value) != 1 {
			faults.add(f.name, sources.Errorf(sources.Invalid, "write "+f.name+"=scheme:path#key, with the whole credential under one key", "a source's own credential is part of a longer value"))
			continue
		}
		p.Credentials = append(p.Credentials, sources.Credential{Name: f.name, Ref: *f.value[0].Ref})
	}
	if cycle := sources.CredentialCycle(p.registry, p.Credentials); cycle != "" {
		faults.add(p.Credentials[0].Name, sources.Errorf(sources.Invalid, "give one of them its credential directly", "the sources' credentials need each other: %s", cycle))
	}
	return rest
}

func (p *Plan) credentialOf(name string, schemes map[string]bool) bool {
	return slices.ContainsFunc(p.registry.Backends(), func(b sources.Backend) bool {
		return schemes[b.Scheme] && slices.ContainsFunc(b.Credentials, func(v sources.Variable) bool { return v.Name == name })
	})
}

// fromVariable makes a secret of a variable that holds a reference.
func (p *Plan) fromVariable(f scanned) (Secret, error) {
	base, pathVariable := splitName(f.name)
	s := Secret{
		Name: strings.ToLower(base), Where: f.name, Value: f.value, Variable: pathVariable,
		Mode: defaultMode, replaces: f.name,
	}
	s.Target = s.Name
	if !validFileName(s.Name) {
		return s, sources.Errorf(sources.Invalid, "give it a name in the config file, under secrets:", "%q cannot be the name of a file", s.Name)
	}
	p.removed[f.name] = true
	return s, nil
}

// checkPreset looks at the two variables that say the same as a secret does:
// NAME, and the NAME_FILE that it would set.
func (p *Plan) checkPreset(s *Secret) error {
	base, _ := splitName(s.Variable)
	if base != s.Variable && base != s.replaces && p.lookup(base) != "" && !p.drops(base) {
		return s.bothSet(base)
	}
	preset := p.lookup(s.Variable)
	if preset == "" || s.Variable == s.replaces {
		return nil
	}
	if !strings.HasPrefix(preset, "/") {
		return s.bothSet(s.Variable)
	}
	s.provided = preset
	return nil
}

func (s Secret) bothSet(other string) error {
	name := s.replaces
	if name == "" {
		name = "the config file's " + s.Name
	}
	both := []string{name, other}
	if strings.HasSuffix(name, "FILE") || strings.HasPrefix(name, "FILE__") {
		slices.Reverse(both)
	}
	return sources.Errorf(sources.Invalid, "unset one of them", "%s: both %s and %s are set, and only one can be meant", s.Value, both[0], both[1])
}

// BothSet is the fault of a secret beside a NAME_FILE whose path nobody provided.
func (s Secret) BothSet() Fault { return Fault{s.Where, s.bothSet(s.Variable)} }

// lookup is empty for a variable that is not set: an empty one counts as unset.
func (p *Plan) lookup(name string) string {
	i := slices.IndexFunc(p.environ, func(v variable) bool { return v.name == name })
	if i < 0 || name == "" {
		return ""
	}
	return p.environ[i].value
}

// parseEntries parses what each entry is from; templates[i] belongs to
// entries[i], and is nil where there is none.
func (p *Plan) parseEntries(entries []configSecret, faults *Faults) (templates []Template) {
	g := grammar{p.registry, true}
	for _, entry := range entries {
		var t Template
		var err error
		if entry.from != "" {
			t, err = g.parse(entry.from)
		}
		if err == nil && entry.from != "" && len(t.Refs()) == 0 {
			err = p.notReference(entry.from)
		}
		faults.add(entry.where+": "+entry.name, err)
		templates = append(templates, t)
	}
	return templates
}

// notReference says why an ordinary value is no reference. It never shows the
// value, which may be the secret itself or a URL that holds it.
func (p *Plan) notReference(text string) error {
	scheme, _, _ := strings.Cut(text, ":")
	backend, known := p.registry.Backend(scheme)
	if known && backend.NeedsSlash {
		return sources.Errorf(sources.Invalid, "write a path with a /, as in "+scheme+":secret/db#password", "from is not a reference")
	}
	if _, err := sources.ParseRef(text); err != nil || known {
		return sources.Errorf(sources.Invalid, "write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password", "from is not a reference")
	}
	return sources.Errorf(sources.Invalid, "known schemes: "+strings.Join(p.registry.Schemes(), ", "), "from has the unknown scheme %q", scheme)
}

// addEntry adds a secret of the config file, or completes the one that a
// variable of the same name has already made.
func (p *Plan) addEntry(entry configSecret, value Template, unclear map[string]bool, faults *Faults) {
	pathVariable := variableFor(entry.name)
	if !entry.expose {
		pathVariable += "_FILE"
	}
	if entry.env != nil {
		pathVariable = *entry.env
	}
	if entry.isTemplate {
		p.addTemplate(entry, pathVariable, faults)
		return
	}
	same := func(s Secret) bool {
		named := s.Name == strings.ToLower(entry.name) || s.Variable != "" && s.Variable == pathVariable
		return named && s.replaces != "" && !s.configured
	}
	if i := slices.IndexFunc(p.Secrets, same); i >= 0 {
		s := &p.Secrets[i]
		s.Name, s.Target, s.UID, s.GID, s.Mode, s.configured = entry.name, entry.target, entry.uid, entry.gid, entry.mode, true
		if s.Expose = entry.expose; s.Expose {
			s.Variable = pathVariable
		}
		if entry.env != nil && s.Variable != s.replaces {
			s.Variable = pathVariable
		}
		return
	}
	base, _ := splitName(pathVariable)
	switch {
	case unclear[pathVariable] || unclear[base]:
		// The reference that may have been meant for it has its own fault.
	case entry.from == "":
		faults.add(entry.where+": "+entry.name, sources.Errorf(sources.Invalid, "add from: REFERENCE, or set "+variableFor(entry.name)+"=REFERENCE", "has no from"))
	case value != nil:
		p.Secrets = append(p.Secrets, Secret{
			Name: entry.name, Where: entry.where + ": " + entry.name, Value: value, Variable: pathVariable,
			Target: entry.target, UID: entry.uid, GID: entry.gid, Mode: entry.mode, Expose: entry.expose,
		})
	}
}

// addTemplate adds a file that is rendered from other secrets.
func (p *Plan) addTemplate(entry configSecret, pathVariable string, faults *Faults) {
	where := entry.where + ": " + entry.name
	text := entry.content
	if entry.source != "" {
		content, err := p.readFile(entry.source)
		if err != nil {
			faults.add(where, sources.Errorf(sources.NotFound, "COPY it into the image, or write content: instead of source:", "the template cannot be read: %v", err))
			return
		}
		text = string(content)
	}
	r, err := parseRendering(text)
	if err != nil {
		faults.add(where, err)
		return
	}
	p.Secrets = append(p.Secrets, Secret{
		Name: entry.name, Where: where, Variable: pathVariable, Target: entry.target,
		UID: entry.uid, GID: entry.gid, Mode: entry.mode, rendering: r,
	})
}

// checkCollisions finds two secrets for one name, file, link or variable.
func checkCollisions(secrets []Secret, faults *Faults) {
	owners := map[string]Secret{}
	for _, s := range secrets {
		for _, what := range []string{"name " + s.Name, "file " + s.FileName(), "variable " + s.Variable, "link " + s.Link()} {
			if strings.HasSuffix(what, " ") {
				continue
			}
			if first, taken := owners[what]; taken {
				faults.add(first.Where+", "+s.Where, sources.Errorf(sources.Invalid, "rename one of them", "two secrets for one %s", what))
				break
			}
			owners[what] = s
		}
	}
}
