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
	// Path is the file that holds the value already, and is left where it
	// lies; empty when one has to be written.
	Path string
}

// Lookup gives the document that a reference points into, or why there is none.
type Lookup func(sources.Ref) (*sources.Document, error)

// Provided tells whether the platform has put a secret there already, and where.
type Provided func(Secret) (path string, ok bool)

// Resolve takes the values of all secrets but those that are provided out of
// the documents, and renders the templates. It reports all faults together;
// warnings tell of what is optional and absent, and of empty values. Beside
// faults there is what could be read: the caller wipes it.
func (p *Plan) Resolve(documents Lookup, provided Provided) (deliveries []Delivery, warnings []string, err error) {
	var faults Faults
	var members []Delivery
	for _, ref := range p.From {
		more, err := p.expand(documents, ref)
		if absent(ref, err) {
			warnings = append(warnings, fmt.Sprintf("--from: %v: it is optional, so nothing is taken from it", err))
			continue
		}
		faults.add("--from", err)
		members = append(members, more...)
	}
	for _, s := range p.Secrets {
		if s.rendering != nil {
			continue
		}
		if path, ok := provided(s); ok {
			if s.Expose {
				content, err := p.readFile(path)
				if err != nil {
					faults.add(s.Where, sources.Errorf(sources.Denied, "check the file's owner and mode", "the provided %s cannot be read: %v", path, err))
					continue
				}
				deliveries = append(deliveries, Delivery{Secret: s, Content: sources.NewSecret(content)})
			}
			continue
		}
		content, errs, missing := evaluate(documents, s.Value)
		if missing != nil {
			warnings = append(warnings, fmt.Sprintf("%s: %v: it is optional, so there is no file", s.Where, missing))
			continue
		}
		for _, err := range errs {
			faults.add(s.Where, err)
		}
		if len(errs) == 0 {
			deliveries = append(deliveries, Delivery{Secret: s, Content: content})
		}
	}
	deliveries = append(deliveries, p.render(slices.Concat(deliveries, members), provided, &faults)...)
	secrets := slices.Clone(p.Secrets)
	for _, m := range members {
		secrets = append(secrets, m.Secret)
		if p.lookup(m.Variable) != "" {
			warnings = append(warnings, fmt.Sprintf("%s: %s is set already, and stays as it is", m.Where, m.Variable))
			m.Variable = ""
		}
		deliveries = append(deliveries, m)
	}
	checkCollisions(secrets, &faults)
	deliveries = slices.DeleteFunc(deliveries, func(d Delivery) bool {
		n := int64(d.Content.Len())
		if n == 0 {
			warnings = append(warnings, fmt.Sprintf("%s: the value is empty", d.Where))
		}
		if n <= p.MaxSize {
			return false
		}
		// The limit is no secret; the value's own length might be.
		faults.add(d.Where, sources.Errorf(sources.Invalid, "raise --max-size", "%s is larger than --max-size (%d bytes)", d.Value, p.MaxSize))
		d.Content.Wipe()
		return true
	})
	return deliveries, warnings, faults.err()
}

// render renders the templates. One that needs a secret with a fault has none
// of its own.
func (p *Plan) render(deliveries []Delivery, provided Provided, faults *Faults) (rendered []Delivery) {
	values := map[string]sources.Secret{}
	for _, d := range deliveries {
		values[d.Name] = d.Content
	}
	for _, s := range p.Secrets {
		if _, given := provided(s); s.rendering == nil || given || len(*faults) > 0 {
			continue
		}
		p.addProvided(values, provided, faults)
		content, err := s.rendering.render(values)
		if err != nil {
			faults.add(s.Where, err)
			continue
		}
		rendered = append(rendered, Delivery{Secret: s, Content: content})
	}
	return rendered
}

// addProvided reads what the platform has provided: only for templates.
func (p *Plan) addProvided(values map[string]sources.Secret, provided Provided, faults *Faults) {
	for _, s := range p.Secrets {
		path, ok := provided(s)
		if _, known := values[s.Name]; !ok || known || s.rendering != nil {
			continue
		}
		content, err := p.readFile(path)
		if err != nil {
			faults.add(s.Where, sources.Errorf(sources.Denied, "check the file's owner and mode", "the provided %s cannot be read: %v", path, err))
			continue
		}
		values[s.Name] = sources.NewSecret(content)
	}
}

func absent(ref sources.Ref, err error) bool {
	return err != nil && ref.Optional() && sources.ClassOf(err) == sources.NotFound
}

// evaluate resolves one template. missing is why there is no value though
// nothing is wrong: a reference in it is optional, and what it names does not exist.
func evaluate(documents Lookup, t Template) (value sources.Secret, errs []error, missing error) {
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
		switch {
		case absent(*part.Ref, err):
			missing = err
		case err != nil:
			errs = append(errs, err)
		case len(t) == 1:
			return secret, nil, nil
		default:
			whole = append(whole, secret.Reveal()...)
			secret.Wipe()
		}
	}
	if len(errs) > 0 {
		missing = nil
	}
	if missing != nil || len(errs) > 0 {
		clear(whole)
		return value, errs, missing
	}
	return sources.NewSecret(whole), nil, nil
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
		deliveries = append(deliveries, Delivery{Secret: s, Content: m.Value, Path: m.Path})
	}
	return deliveries, nil
}
