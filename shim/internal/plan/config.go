package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"secret-init/sources"
)

// configSecret is one entry below secrets: in the config file.
type configSecret struct {
	where  string
	name   string
	from   string
	env    *string
	target string
	uid    string
	gid    string
	mode   uint32
	// expose: into a variable, not a file.
	expose bool
	// isTemplate: rendered from source, a path, or content.
	isTemplate      bool
	source, content string
}

// config is the parsed config file.
type config struct {
	settings []setting
	secrets  []configSecret
}

// defaultMode is Compose's for a secret with an owner of its own.
const defaultMode = 0o400

// configParser collects every fault of one file.
type configParser struct {
	name   string
	faults Faults
	config config
}

// parseConfig reads the config file. It holds references, never values, so
// that errors may quote its keys; values are quoted only where they are
// options.
func parseConfig(name string, content []byte) (config, Faults) {
	p := &configParser{name: name}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var root yaml.Node
	err := dec.Decode(&root)
	if errors.Is(err, io.EOF) {
		return p.config, nil
	}
	if err != nil {
		where, what := syntaxError(name, content, err)
		p.faults.add(where, sources.Errorf(sources.Invalid, "check that line's quotes, blanks and colons", "%s", what))
		return p.config, p.faults
	}
	if dec.Decode(new(yaml.Node)) == nil {
		p.faults.add(name, sources.Errorf(sources.Invalid, "leave the line --- out", "has more than one YAML document"))
	}
	p.mapping(root.Content[0], "the file", p.topLevel)
	return p.config, p.faults
}

var (
	yamlMessage = regexp.MustCompile(`^yaml: (?:line \d+: )?(.*)$`)
	yamlAnchor  = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxBudget is how many bytes are read again at most to find a broken
// line: far more than a config file of a sane size needs.
const syntaxBudget = 1 << 20

// syntaxError says where YAML is broken, and how. The library's line is often
// missing or the one before, so the lines are tried: the file is broken from
// the first line on with which no beginning of it can be read any more. An
// alias's name is not repeated, for it may be a value that lacks its quotes.
func syntaxError(name string, content []byte, err error) (where, what string) {
	what = "is not valid YAML"
	message := ""
	if match := yamlMessage.FindStringSubmatch(err.Error()); match != nil {
		message = match[1]
	}
	if match := yamlAnchor.FindStringSubmatch(message); match != nil {
		before, _, _ := bytes.Cut(content, []byte("*"+match[1]))
		line, column := bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n')
		return fmt.Sprintf("%s:%d:%d", name, line, column), what + ": a * stands for an anchor, and there is none of that name"
	}
	if message != "" {
		what += ": " + message
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	broken, end := len(lines), len(content)
	for budget := syntaxBudget; broken > 1; broken-- {
		end -= len(lines[broken-1])
		if budget -= end; budget < 0 || yaml.Unmarshal(content[:end], new(yaml.Node)) == nil {
			break
		}
	}
	line := lines[broken-1]
	column := len(line) - len(bytes.TrimLeft(line, " \t")) + 1
	return fmt.Sprintf("%s:%d:%d", name, broken, column), what
}

func (p *configParser) at(node *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", p.name, node.Line, node.Column)
}

func (p *configParser) fault(node *yaml.Node, hint, format string, args ...any) {
	p.faults.add(p.at(node), sources.Errorf(sources.Invalid, hint, format, args...))
}

// mapping calls entry for every key of a mapping, and finds keys given twice.
func (p *configParser) mapping(node *yaml.Node, what string, entry func(key, value *yaml.Node)) {
	node = resolve(node)
	if node.Kind != yaml.MappingNode {
		if !isNull(node) {
			p.fault(node, "write key: value", "%s is not a mapping", what)
		}
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		if seen[key.Value] {
			p.fault(key, "leave one of them out", "key %q is given twice", key.Value)
			continue
		}
		seen[key.Value] = true
		entry(key, value)
	}
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func (p *configParser) topLevel(key, value *yaml.Node) {
	switch key.Value {
	case "secrets":
		p.mapping(value, "secrets", p.secret)
		return
	case "templates":
		p.mapping(value, "templates", p.template)
		return
	}
	option, ok := findOption(key.Value)
	switch {
	case !ok:
		p.fault(key, suggest("", key.Value, append(optionNames(), "secrets", "templates"), "look with: secret-init help"), "unknown key %q", key.Value)
		return
	case option.Name == "config":
		p.fault(key, "name it with --config or SECRET_INIT_CONFIG", "a config file cannot name another")
		return
	}
	text, ok := p.scalars(value)
	if !ok {
		p.fault(value, "write "+key.Value+": VALUE, or "+key.Value+": [VALUE, VALUE]", "%s is neither a value nor a list of values", key.Value)
		return
	}
	p.config.settings = append(p.config.settings, setting{option, text, p.at(value) + ": " + key.Value})
}

// scalars joins a list with commas, as the command line has it.
func (p *configParser) scalars(node *yaml.Node) (string, bool) {
	if node.Kind == yaml.ScalarNode {
		return node.Value, !isNull(node)
	}
	var items []string
	for _, item := range node.Content {
		if resolve(item).Kind != yaml.ScalarNode || node.Kind != yaml.SequenceNode {
			return "", false
		}
		items = append(items, resolve(item).Value)
	}
	return strings.Join(items, ","), node.Kind == yaml.SequenceNode
}

func (p *configParser) secret(key, value *yaml.Node) {
	s := configSecret{where: p.at(key), name: key.Value, target: key.Value, mode: defaultMode}
	if !validFileName(s.name) {
		p.fault(key, hintFileName, "%q cannot be the name of a file", s.name)
		return
	}
	if value.Kind == yaml.ScalarNode && !isNull(value) {
		s.from = value.Value
	} else {
		p.mapping(value, "secret "+s.name, func(k, v *yaml.Node) { p.field(&s, "secret", secretFields, k, v) })
	}
	p.config.secrets = append(p.config.secrets, s)
}

// template is a file made of several secrets: delivered as one is.
func (p *configParser) template(key, value *yaml.Node) {
	t := configSecret{where: p.at(key), name: key.Value, target: key.Value, mode: defaultMode, isTemplate: true}
	if !validFileName(t.name) {
		p.fault(key, hintFileName, "%q cannot be the name of a file", t.name)
		return
	}
	p.mapping(value, "template "+t.name, func(k, v *yaml.Node) { p.field(&t, "template", templateFields, k, v) })
	if (t.source == "") == (t.content == "") {
		p.fault(key, "write source: PATH, or content: TEXT", "template %s needs one of source and content", t.name)
		return
	}
	p.config.secrets = append(p.config.secrets, t)
}

var (
	fileFields     = []string{"env", "target", "uid", "gid", "mode"}
	secretFields   = append([]string{"from", "expose"}, fileFields...)
	templateFields = append([]string{"source", "content"}, fileFields...)
)

// ConfigKeys are the keys of a secret and of a template in the config file.
func ConfigKeys() (secret, template []string) { return secretFields, templateFields }

func (p *configParser) field(s *configSecret, kind string, known []string, key, value *yaml.Node) {
	if !slices.Contains(known, key.Value) {
		p.fault(key, suggest("", key.Value, known, "write one of: "+strings.Join(known, ", ")), "unknown key %q in %s %s", key.Value, kind, s.name)
		return
	}
	if value.Kind != yaml.ScalarNode || isNull(value) {
		p.fault(value, "write "+key.Value+": VALUE", "%s is not one value", key.Value)
		return
	}
	switch key.Value {
	case "from":
		s.from = value.Value
	case "source":
		if !filepath.IsAbs(value.Value) {
			p.fault(value, "write it from the root, as in source: /etc/app.tmpl", "source %q is not an absolute path", value.Value)
		}
		s.source = value.Value
	case "content":
		s.content = value.Value
	case "expose":
		if value.Value != "env" {
			p.fault(value, "write expose: env, or leave it out for a file", "expose does not take %q", value.Value)
		}
		s.expose = true
	case "env":
		if !validVariable(value.Value) && value.Value != "" {
			p.fault(value, "write a name without =, or \"\" for no variable", "%q cannot be the name of a variable", value.Value)
		}
		s.env = &value.Value
	case "target":
		if !validFileName(value.Value) && (!filepath.IsAbs(value.Value) || filepath.Clean(value.Value) != value.Value || value.Value == "/") {
			p.fault(value, "write a name without a slash, or a path from the root", "target %q is neither a file name nor an absolute path", value.Value)
		}
		s.target = value.Value
	case "uid":
		s.uid = value.Value
	case "gid":
		s.gid = value.Value
	case "mode":
		mode, err := strconv.ParseUint(value.Value, 8, 32)
		if err != nil || !strings.HasPrefix(value.Value, "0") || mode > 0o777 {
			p.fault(value, `write mode: "0400"`, "mode %q is not octal with a leading zero", value.Value)
		}
		s.mode = uint32(mode)
	}
}

const hintFileName = "write a name without a slash, that does not begin with .secret-init"

// validFileName: one component that a directory can hold. A leading
// .secret-init is the program's own.
func validFileName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 &&
		!strings.ContainsAny(name, "/\x00") && !strings.HasPrefix(name, ".secret-init")
}

func validVariable(name string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00")
}

// variableFor is the default variable of a secret's name, without _FILE:
// upper case, with _ for what is not a letter or a digit.
func variableFor(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			return c
		}
		return '_'
	}, name)
}
