//go:build !no_sops

package sops

import (
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/stores"
	"gopkg.in/ini.v1"

	"secret-init/sources"
)

// parser makes the keys of a decrypted file selectable. YAML and JSON are
// parsed as `sops decrypt` prints them. dotenv and INI have no grammar that
// all agree on, so what sops itself understood is taken.
func parser(format string, branches sops.TreeBranches) func([]byte) (*sources.Value, error) {
	switch format {
	case formatYAML:
		return sources.ParseYAML
	case formatJSON:
		return sources.ParseJSON
	case formatDotenv:
		return func([]byte) (*sources.Value, error) { return object(branches[0]), nil }
	case formatINI:
		return func([]byte) (*sources.Value, error) { return sections(branches[0]) }
	}
	return nil
}

// object has one member for each key of branch; comments are left out.
func object(branch sops.TreeBranch) *sources.Value {
	v := &sources.Value{Kind: sources.Object}
	for _, item := range branch {
		if name, ok := item.Key.(string); ok {
			text := &sources.Value{Kind: sources.String, Text: []byte(stores.ValToString(item.Value))}
			v.Members = append(v.Members, sources.ValueMember{Name: name, Value: text})
		}
	}
	return v
}

// sections is an INI file: an object for each section, and at the top level
// the keys that stand before the first section. A section that comes twice
// is one.
func sections(branch sops.TreeBranch) (*sources.Value, error) {
	root := &sources.Value{Kind: sources.Object}
	named := map[string]*sources.Value{}
	for _, item := range branch {
		name, isName := item.Key.(string)
		keys, isSection := item.Value.(sops.TreeBranch)
		if !isName || !isSection {
			continue
		}
		if name == ini.DefaultSection {
			root.Members = append(root.Members, object(keys).Members...)
			continue
		}
		if named[name] == nil {
			named[name] = &sources.Value{Kind: sources.Object}
			root.Members = append(root.Members, sources.ValueMember{Name: name, Value: named[name]})
		}
		named[name].Members = append(named[name].Members, object(keys).Members...)
	}
	for _, m := range root.Members {
		if section := named[m.Name]; section != nil && section != m.Value {
			return nil, sources.Errorf(sources.Invalid, "rename one of them", "has a key and a section of the same name %q", m.Name)
		}
	}
	return root, nil
}
