package plan

import (
	"fmt"
	"slices"

	"secret-init/sources"
)

// Delivery is one secret with its value: a file to write.
type Delivery struct {
	Secret
	Content sources.Secret
}

// Lookup gives the document that a reference points into, or why there is none.
type Lookup func(sources.Ref) (*sources.Document, error)

// Resolve takes the values of all secrets but those that are provided out of
// the documents. It reports all faults together; warnings tell of what is
// optional and absent, and of empty values.
func (p *Plan) Resolve(documents Lookup, skip func(Secret) bool) (deliveries []Delivery, warnings []string, err error) {
	var faults Faults
	secrets := slices.Clone(p.Secrets)
	values := map[string]sources.Secret{}
	for _, ref := range p.From {
		members, err := p.expand(documents, ref)
		if absent(ref, err) {
			warnings = append(warnings, fmt.Sprintf("--from: %v: it is optional, so nothing is taken from it", err))
			continue
		}
		faults.add("--from", err)
		for _, m := range members {
			secrets = append(secrets, m.Secret)
			values[m.Name] = m.Content
		}
	}
	expanded := Plan{Secrets: secrets}
	expanded.checkCollisions(&faults)
	for _, s := range secrets {
		if skip(s) {
			continue
		}
		content, isMember := values[s.Name]
		if !isMember {
			var missing bool
			var err error
			content, missing, err = evaluate(documents, s.Value)
			if missing {
				warnings = append(warnings, fmt.Sprintf("%s: %v: it is optional, so there is no file", s.Where, err))
				continue
			}
			if err != nil {
				faults.add(s.Where, err)
				continue
			}
		}
		if n := int64(content.Len()); n > p.MaxSize {
			// The limit is no secret; the value's own length might be.
			faults.add(s.Where, sources.Errorf(sources.Invalid, "raise it with --max-size", "%s is larger than --max-size (%d bytes)", s.Value, p.MaxSize))
		} else if n == 0 {
			warnings = append(warnings, fmt.Sprintf("%s: the value is empty", s.Where))
		}
		deliveries = append(deliveries, Delivery{s, content})
	}
	if err := faults.err(); err != nil {
		for _, d := range deliveries {
			d.Content.Wipe()
		}
		return nil, warnings, err
	}
	return deliveries, warnings, nil
}

func absent(ref sources.Ref, err error) bool {
	return err != nil && ref.Optional() && sources.ClassOf(err) == sources.NotFound
}

// evaluate resolves one template. missing tells that err is no fault: a
// reference in it is optional, and what it names does not exist.
func evaluate(documents Lookup, t Template) (value sources.Secret, missing bool, err error) {
	var whole []byte
	for _, part := range t {
		if part.Ref == nil {
			whole = append(whole, part.Literal...)
			continue
		}
		document, err := documents(*part.Ref)
		var secret sources.Secret
		if err == nil {
			secret, err = document.Select(*part.Ref)
		}
		if err != nil {
			clear(whole)
			return value, absent(*part.Ref, err), err
		}
		if len(t) == 1 {
			return secret, false, nil
		}
		whole = append(whole, secret.Reveal()...)
		secret.Wipe()
	}
	return sources.NewSecret(whole), false, nil
}

// expand makes one secret of every top-level scalar of a document.
func (p *Plan) expand(documents Lookup, ref sources.Ref) ([]Delivery, error) {
	document, err := documents(ref)
	if err != nil {
		return nil, err
	}
	members, err := document.Members(ref)
	if err != nil {
		return nil, err
	}
	var deliveries []Delivery
	for _, m := range members {
		name := ref.Prefix() + m.Name
		if !validFileName(name) {
			return nil, sources.Errorf(sources.Invalid, "give it a name in the config file, under secrets:", "%s has a key %q, which cannot be the name of a file", ref.Name(), m.Name)
		}
		single := ref.Document()
		single.Key = m.Name
		s := Secret{
			Name: name, Where: "--from " + ref.String() + ": " + name, Value: Template{{Ref: &single}},
			Variable: variableFor(name) + "_FILE", Target: name, Mode: defaultMode,
		}
		deliveries = append(deliveries, Delivery{s, m.Value})
	}
	return deliveries, nil
}
