package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"secret-init/shim/internal/plan"
)

// check does all that a start does but for writing and running, goes on
// after a fault, and reports all of them below a table.
func check(args, environ []string, ui *ui) error {
	if err := guard(); err != nil {
		return err
	}
	s, err := newStartup(args, environ, ui)
	ctx, done := s.deadline()
	defer done()
	defer s.takeBack()
	var faults plan.Faults
	collect := func(err error) {
		if several, ok := errors.AsType[plan.Faults](err); ok {
			faults = append(faults, several...)
		} else if err != nil {
			faults = append(faults, plan.Fault{Err: err})
		}
	}
	collect(err)
	steps := []func(context.Context) error{s.identify, s.findProvided, s.choosePlace, s.fetch}
	if s.plan.Command != nil {
		steps = append([]func(context.Context) error{s.findCommand}, steps...)
	}
	for _, step := range steps {
		collect(step(ctx))
	}
	s.table()
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// table prints a row for each secret: what it comes from, and what comes of it.
func (s *startup) table() {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SECRET\tREFERENCE\tVERSION\tMS\tFILE\tVARIABLE\tOWNER\tMODE\tSTATE")
	read := map[string]bool{}
	for _, d := range s.values {
		read[d.Name] = true
		file := s.file(d)
		path := s.plan.Dir + "/" + d.FileName()
		if s.place != nil {
			path = s.place.FilePath(d.FileName())
		}
		if d.Path != "" {
			path = d.Path
		}
		version, took := s.readings(d.Secret)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d:%d\t%04o\tok\n", d.Name, d.Value, version, took, path, d.Variable, file.UID, file.GID, file.Mode)
	}
	for _, secret := range s.plan.Secrets {
		if read[secret.Name] {
			continue
		}
		state := "not read"
		if s.isProvided(secret) {
			state = "provided"
		}
		fmt.Fprintf(w, "%s\t%s\t\t\t%s\t%s\t\t\t%s\n", secret.Name, secret.Value, s.provided[secret.Name], secret.Variable, state)
	}
	_ = w.Flush()
	s.ui.print(text.String())
	if s.place != nil {
		s.ui.print(fmt.Sprintf("files go to %s (%s)\n", s.place.Path, s.place.Kind))
		for _, why := range s.place.Rejected {
			s.ui.print("not used: " + why + "\n")
		}
	}
	if dropped := s.plan.Dropped(); len(dropped) > 0 {
		s.ui.print("the command does not get: " + strings.Join(dropped, ", ") + "\n")
	}
}

// readings are the versions and the milliseconds of a secret's documents.
func (s *startup) readings(secret plan.Secret) (versions, took string) {
	var all, times []string
	for _, ref := range secret.Value.Refs() {
		f := s.documents[ref.Document().String()]
		if f.Document != nil && f.Document.Version != "" {
			all = append(all, f.Document.Version)
		}
		times = append(times, fmt.Sprint(f.Took.Milliseconds()))
	}
	return strings.Join(all, ","), strings.Join(times, ",")
}
