package main

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// report says at info what has been delivered: a line a start, and for a
// machine an event a secret as well. Never a value or its length.
func (s *startup) report(where ...any) {
	used := map[string]bool{}
	for _, d := range s.values {
		for _, source := range d.Sources() {
			used[source] = true
		}
		if s.plan.LogFormat == "json" {
			version, _, _ := s.readings(d.Secret)
			s.ui.info("secret delivered", "name", d.Name, "reference", d.Value.String(), "version", version)
		}
	}
	attrs := []any{"count", len(s.values)}
	if len(used) > 0 {
		attrs = append(attrs, "sources", strings.Join(slices.Sorted(maps.Keys(used)), ","))
	}
	if len(s.provided) > 0 {
		attrs = append(attrs, "provided", len(s.provided))
	}
	attrs = append(attrs, "took", time.Since(s.started).Round(time.Millisecond).String())
	s.ui.info("secrets delivered", append(attrs, where...)...)
}
