package sources

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
)

// Kind is the type of a Value.
type Kind int

// The kinds of JSON, to which YAML's, dotenv's and INI's are mapped.
const (
	Null Kind = iota
	String
	Number
	Bool
	Object
	Array
)

// Value is a parsed document. It keeps the order of members and the spelling
// of numbers, so that a secret leaves as it came.
type Value struct {
	Kind Kind
	// Text is a scalar as the source spelled it.
	Text    []byte
	Members []ValueMember
	Items   []*Value
}

// ValueMember is one key of an object with its value.
type ValueMember struct {
	Name  string
	Value *Value
}

// bytes is what a file gets: a scalar as it is spelled, the rest as JSON.
func (v *Value) bytes() []byte {
	if v.Kind == Object || v.Kind == Array {
		return v.appendJSON(nil)
	}
	return bytes.Clone(v.Text)
}

func (v *Value) appendJSON(b []byte) []byte {
	switch v.Kind {
	case Null:
		return append(b, "null"...)
	case String:
		return appendJSONString(b, v.Text)
	case Object:
		b = append(b, '{')
		for i, m := range v.Members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, []byte(m.Name))
			b = append(b, ':')
			b = m.Value.appendJSON(b)
		}
		return append(b, '}')
	case Array:
		b = append(b, '[')
		for i, item := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	}
	// YAML spells numbers and booleans in ways that JSON does not know.
	if !json.Valid(v.Text) {
		var plain any
		if yaml.Unmarshal(v.Text, &plain) == nil {
			if text, err := json.Marshal(plain); err == nil {
				return append(b, text...)
			}
		}
		return appendJSONString(b, v.Text)
	}
	return append(b, v.Text...)
}

func appendJSONString(b, text []byte) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	// Encoding a string into memory cannot fail.
	_ = enc.Encode(string(text))
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// errNotJSON holds no detail: the library's would quote the document.
func errNotJSON() error {
	return Errorf(Invalid, hintWhole, "is not JSON, so it has no keys")
}

// ParseJSON parses one JSON document.
func ParseJSON(data []byte) (*Value, error) {
	// Valid also bounds the nesting, which Token does not.
	if !json.Valid(data) {
		return nil, errNotJSON()
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseJSON(dec)
	if err != nil {
		return nil, errNotJSON()
	}
	return v, nil
}

func parseJSON(dec *json.Decoder) (*Value, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case string:
		return &Value{Kind: String, Text: []byte(t)}, nil
	case json.Number:
		return &Value{Kind: Number, Text: []byte(t)}, nil
	case bool:
		text := "false"
		if t {
			text = "true"
		}
		return &Value{Kind: Bool, Text: []byte(text)}, nil
	case json.Delim:
		v := &Value{Kind: Array}
		if t == '{' {
			v.Kind = Object
		}
		for dec.More() {
			if v.Kind == Array {
				item, err := parseJSON(dec)
				if err != nil {
					return nil, err
				}
				v.Items = append(v.Items, item)
				continue
			}
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			member, err := parseJSON(dec)
			if err != nil {
				return nil, err
			}
			v.Members = append(v.Members, ValueMember{name.(string), member})
		}
		_, err := dec.Token()
		return v, err
	}
	return &Value{Kind: Null}, nil
}

// ParseYAML parses YAML. Several documents become a list of them.
func ParseYAML(data []byte) (*Value, error) {
	notYAML := Errorf(Invalid, hintWhole, "is not YAML, so it has no keys")
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var aliases yamlAliases
	var documents []*Value
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, notYAML
		}
		v, err := aliases.value(&node, 0)
		if err != nil {
			return nil, err
		}
		documents = append(documents, v)
	}
	switch len(documents) {
	case 0:
		return nil, notYAML
	case 1:
		return documents[0], nil
	}
	return &Value{Kind: Array, Items: documents}, nil
}

// yamlAliases counts the nodes that aliases have added: a few lines of
// aliases to aliases would be gigabytes.
type yamlAliases struct{ inside, added int }

func (a *yamlAliases) value(node *yaml.Node, depth int) (*Value, error) {
	// An alias may point at its own ancestor.
	if depth > 100 {
		return nil, Errorf(Invalid, hintWhole, "is YAML nested more than 100 deep")
	}
	if a.inside > 0 {
		a.added++
	}
	if a.added > 100_000 {
		return nil, Errorf(Invalid, hintWhole, "is YAML whose aliases make it too large")
	}
	switch node.Kind {
	case yaml.DocumentNode:
		return a.value(node.Content[0], depth+1)
	case yaml.AliasNode:
		a.inside++
		defer func() { a.inside-- }()
		return a.value(node.Alias, depth+1)
	case yaml.SequenceNode:
		v := &Value{Kind: Array}
		for _, child := range node.Content {
			item, err := a.value(child, depth+1)
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, item)
		}
		return v, nil
	case yaml.MappingNode:
		v := &Value{Kind: Object}
		for i := 0; i+1 < len(node.Content); i += 2 {
			member, err := a.value(node.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			v.Members = append(v.Members, ValueMember{node.Content[i].Value, member})
		}
		return v, nil
	}
	v := &Value{Kind: String, Text: []byte(node.Value)}
	switch node.ShortTag() {
	case "!!null":
		v.Kind = Null
	case "!!bool":
		v.Kind = Bool
	case "!!int", "!!float":
		v.Kind = Number
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(node.Value)
		if err != nil {
			return nil, Errorf(Invalid, hintWhole, "has a !!binary value that is not base64")
		}
		v.Text = raw
	}
	return v, nil
}
