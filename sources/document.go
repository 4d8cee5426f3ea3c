package sources

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Document is what one read of a source gives.
type Document struct {
	// Bytes are what a reference without a key delivers, exactly; nil when
	// the document is a set of names that has no form of its own.
	Bytes []byte
	// Parse makes the keys of Bytes selectable; nil when it has none. It is
	// called only when a key is asked for. Its errors hold no content.
	Parse func([]byte) (*Value, error)
	// Dir is set when the members are files of this directory already: then
	// --from leaves them where they lie.
	Dir string
	// Version is the source's own name of this state of the document.
	Version string
	Lease   Lease
}

// Lease is how long a dynamic secret lives; the zero Lease is for ever.
type Lease struct {
	ID        string
	Duration  time.Duration
	Renewable bool
}

// Wipe overwrites the document's bytes.
func (d *Document) Wipe() { clear(d.Bytes) }

// Select is the value that ref's key points to, decoded and encoded as ref
// asks. Its errors name ref's document.
func (d *Document) Select(ref Ref) (Secret, error) {
	value, err := d.lookup(ref.Key)
	if err == nil {
		value, err = transform(value, ref)
	}
	if err != nil {
		return Secret{}, withSubject(err, ref)
	}
	return NewSecret(value), nil
}

// Member is one top-level value of a document.
type Member struct {
	Name  string
	Value Secret
	// Path is the file that holds the value already; empty when none does.
	Path string
}

// Members are the top-level scalars of the document that ref names, for
// --from. A nested value or null is an error that shows what to write.
func (d *Document) Members(ref Ref) ([]Member, error) {
	whole := "make one secret of it in the config file, as in NAME: " + ref.Document().String()
	root, err := d.parse()
	if err == nil && root.Kind != Object {
		err = Errorf(Invalid, whole, "is not an object, so it has no names to take secrets from")
	} else if e, ok := err.(*Error); ok && e.Hint == hintWhole {
		e.Hint = whole
	}
	if err != nil {
		return nil, withSubject(err, ref)
	}
	var members []Member
	for _, m := range root.Members {
		value, err := m.Value.at(m.Name)
		if m.Value.Kind == Object || m.Value.Kind == Array {
			single := ref.Document()
			single.Key = "/" + escapePointer(m.Name) + "/" + firstChild(m.Value)
			err = Errorf(Invalid, "name what you need of it: "+single.String(), "has a nested value at key %q", m.Name)
		}
		if err == nil {
			value, err = transform(value, ref)
		}
		if err != nil {
			return nil, withSubject(err, ref)
		}
		member := Member{Name: m.Name, Value: NewSecret(value)}
		if d.Dir != "" {
			member.Path = filepath.Join(d.Dir, m.Name)
		}
		members = append(members, member)
	}
	return members, nil
}

func withSubject(err error, ref Ref) error {
	if e, ok := err.(*Error); ok && e.Subject == "" {
		e.Subject = ref.Name()
	}
	return err
}

func (d *Document) parse() (*Value, error) {
	if d.Parse == nil {
		return nil, Errorf(Invalid, hintWhole, "is one value, so it has no keys")
	}
	return d.Parse(d.Bytes)
}

func (d *Document) lookup(key string) ([]byte, error) {
	if key == "" && d.Bytes == nil {
		return nil, Errorf(Invalid, "name one with #key, or take all of them with --from", "is a set of names, not one value")
	}
	if key == "" {
		return slices.Clone(d.Bytes), nil
	}
	root, err := d.parse()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(key, "/") {
		value, err := root.child(key)
		if err != nil {
			return nil, err
		}
		return value.at(key)
	}
	value := root
	for _, token := range strings.Split(key[1:], "/") {
		if value, err = value.child(unescapePointer(token)); err != nil {
			err.(*Error).What += " (in pointer " + key + ")"
			return nil, err
		}
	}
	return value.at(key)
}

func (v *Value) at(key string) ([]byte, error) {
	if v.Kind == Null {
		return nil, Errorf(Invalid, hintNull, "has null at key %q", key)
	}
	return v.bytes(), nil
}

// child is a member of an object, or an item of an array (RFC 6901, 4).
func (v *Value) child(name string) (*Value, error) {
	switch v.Kind {
	case Object:
		for i := range v.Members {
			if v.Members[i].Name == name {
				return v.Members[i].Value, nil
			}
		}
		return nil, Errorf(NotFound, v.keysHint(), "has no key %q", name)
	case Array:
		n, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(n) != name || n < 0 {
			return nil, Errorf(Invalid, v.itemsHint(), "is a list of %d, and %q is not the number of an item", len(v.Items), name)
		}
		if n >= len(v.Items) {
			return nil, Errorf(NotFound, v.itemsHint(), "has no item %d: the list has %d", n, len(v.Items))
		}
		return v.Items[n], nil
	}
	return nil, Errorf(Invalid, "leave that key out to get the whole value", "has no key %q: it is not an object", name)
}

const (
	hintWhole = "leave the #key out to get the whole document"
	hintNull  = "give the key a value at the source, or name another key"
)

// keysHint names the keys there are: a key's name is not a secret.
func (v *Value) keysHint() string {
	const most = 20
	if len(v.Members) == 0 {
		return hintWhole + ": it has no keys"
	}
	var names []string
	for _, m := range v.Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return "it has: " + strings.Join(names, ", ")
}

// itemsHint tells how the items are named.
func (v *Value) itemsHint() string {
	switch len(v.Items) {
	case 0:
		return "leave that key out to get the whole list: it is empty"
	case 1:
		return "it has: item 0"
	}
	return fmt.Sprintf("it has: items 0 to %d", len(v.Items)-1)
}

func firstChild(v *Value) string {
	if v.Kind == Object && len(v.Members) > 0 {
		return escapePointer(v.Members[0].Name)
	}
	return "0"
}

var (
	pointerEscaper   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescaper = strings.NewReplacer("~1", "/", "~0", "~")
)

func escapePointer(s string) string   { return pointerEscaper.Replace(s) }
func unescapePointer(s string) string { return pointerUnescaper.Replace(s) }

func transform(value []byte, ref Ref) ([]byte, error) {
	if ref.Params[paramDecode] == "base64" {
		text := strings.Join(strings.Fields(string(value)), "")
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			// The library's error tells where the value is malformed, and no more is needed.
			return nil, Errorf(Invalid, "leave decode=base64 out", "holds a value that is not base64")
		}
		value = decoded
	}
	switch ref.Params[paramEncode] {
	case "url":
		// QueryEscape writes a blank as a plus, which is a plus in a URL's user part.
		value = []byte(strings.ReplaceAll(url.QueryEscape(string(value)), "+", "%20"))
	case "json":
		value = appendJSONString(nil, value)
	}
	return value, nil
}
