package main

import (
	"context"
	"crypto/rand"
	"os"
	"slices"
	"strings"

	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/stay"
	"secret-init/shim/internal/supervise"
)

// findProbe refuses a probe that cannot be read before anything is fetched.
func (s *startup) findProbe(context.Context) error {
	if s.plan.Ready == "" {
		return nil
	}
	if _, err := supervise.ParseProbe(s.plan.Ready); err != nil {
		return fail(exitUsage, "it takes: "+supervise.ProbeForms(), "--ready: %w", err)
	}
	return nil
}

// planRemoval adds to the duty what the options ask for, and to the order the
// socket that the command is to notify.
func (s *startup) planRemoval(d *stay.Duty, o *order) error {
	if s.plan.Remove.Never() || s.place == nil {
		return nil
	}
	d.Removal = &stay.Removal{After: s.plan.Remove.After, Timeout: s.plan.ReadyTimeout}
	if !s.plan.Remove.OnReady {
		return nil
	}
	probe, err := supervise.ParseProbe(s.plan.Ready)
	if err != nil {
		return err
	}
	d.Removal.Ready = probe.String()
	if probe.UsesNotify() {
		d.Removal.Notify = "@secret-init-" + rand.Text()
		d.Removal.Upward = os.Getenv(notifyVariable)
		o.Environ = slices.DeleteFunc(slices.Clone(o.Environ), func(v string) bool { return strings.HasPrefix(v, notifyVariable+"=") })
		o.Environ = append(o.Environ, notifyVariable+"="+d.Removal.Notify)
	}
	return nil
}

const notifyVariable = "NOTIFY_SOCKET"

// answer is the child that runs the command of an exec probe.
func answer(args []string, ui *ui) error {
	if err := privdrop.Guard(); err != nil {
		return err
	}
	o, err := takeOrder(args)
	if err != nil {
		return err
	}
	s, err := newStartup(o.Args, o.Environ, ui)
	if err != nil {
		return err
	}
	s.order = o
	s.plan.Existing = "use"
	if s.plan.Command, err = supervise.ProbeCommand(s.plan.Ready); err != nil {
		return err
	}
	ctx, done := s.deadline()
	defer done()
	for _, step := range []func(context.Context) error{s.findCommand, s.identify, s.findProvided, s.findDelivered, s.become} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}
