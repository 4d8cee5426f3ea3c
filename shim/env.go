package main

import (
	"context"

	"secret-init/shim/internal/secretfs"
)

// enter is `secret-init env`: it runs a command in a container that has
// started, with the variables of what has been delivered there. A HEALTHCHECK
// and docker exec get the container's configured environment, which has
// references and no paths. Nothing is fetched, and no user is changed.
func enter(args, environ []string, ui *ui) error {
	s, err := newStartup(args, environ, ui)
	if err != nil {
		return err
	}
	s.plan.Existing = "use"
	ctx, done := s.deadline()
	defer done()
	for _, step := range []func(context.Context) error{s.findCommand, s.findProvided, s.findDelivered, s.become} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// findDelivered takes the paths from the manifest of the start that wrote them.
func (s *startup) findDelivered(context.Context) error {
	if s.wanted() == 0 {
		return nil
	}
	entries, err := secretfs.Delivered(s.plan.Dir)
	if err != nil {
		return fail(exitNotFound, "wait until the container has started; what --remove has removed, and --deliver memfd, cannot be found again", "%w", err)
	}
	for _, entry := range entries {
		s.paths[entry.Variable] = entry.Path
	}
	return nil
}
