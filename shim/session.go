package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/plan"
	"secret-init/sources"
)

// session is what one child leaves to the next: tokens and leases, and the
// documents, so that a restart or a source that is down needs none to be
// read. It lies in a memfd, which PID 1 makes, passes on and never reads.
type session struct {
	fd int

	// Sources are the states of the sources that keep one, by scheme.
	Sources map[string][]byte
	// Documents are the last good ones, by reference.
	Documents map[string]sources.Kept
	// Delivered is a digest of what the files hold.
	Delivered string

	// fresh is the digest of what this child resolved.
	fresh string
}

// openSession reads the session at an inherited descriptor. One that a child
// did not write to its end is a new one: there is nothing to be done about it.
func openSession(fd int) *session {
	linux.CloseOnExec(fd)
	s := &session{}
	text, err := linux.ReadMemory(fd)
	defer clear(text)
	if err != nil || len(text) == 0 || json.Unmarshal(text, s) != nil {
		s = &session{}
	}
	s.fd = fd
	if s.Sources == nil {
		s.Sources = map[string][]byte{}
	}
	if s.Documents == nil {
		s.Documents = map[string]sources.Kept{}
	}
	return s
}

func (s *session) save() error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	defer clear(text)
	return linux.RewriteMemory(s.fd, text)
}

// take notes the documents that were read, but for those that were preloaded.
func (s *session) take(read map[string]*sources.Document, preloaded map[string]bool) {
	now := time.Now()
	for id, document := range read {
		if preloaded[id] {
			continue
		}
		if kept, ok := document.Keep(now); ok {
			s.Documents[id] = kept
		}
	}
}

// preload makes every document known that is kept, for a command that is
// started again with the values that it has.
func (s *session) preload(f *sources.Fetcher) (preloaded map[string]bool) {
	preloaded = map[string]bool{}
	for id, kept := range s.Documents {
		if ref, err := sources.ParseRef(id); err == nil {
			f.Preload(ref, kept.Document())
			preloaded[id] = true
		}
	}
	return preloaded
}

// next is when the first of the leases is due, or at; zero is never.
func (s *session) next(at time.Time) time.Duration {
	for _, kept := range s.Documents {
		if due := kept.Due(); !due.IsZero() && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	if at.IsZero() {
		return 0
	}
	// Zero would be never.
	return max(time.Millisecond, time.Until(at))
}

// digest tells one set of deliveries from another. Names and lengths are
// part of it, so that no byte can move from one to the next.
func (s *startup) digest(deliveries []plan.Delivery) string {
	hash := sha256.New()
	for _, d := range deliveries {
		content := d.Content.Reveal()
		owner := s.ownerOf(d.Secret)
		fmt.Fprintf(hash, "%q %q %q %q %d %d %o %t %d\n", d.Name, d.FileName(), d.Link(), d.Variable, owner.UID, owner.GID, d.Mode, d.Expose, len(content))
		_, _ = bytes.NewReader(content).WriteTo(hash)
	}
	return hex.EncodeToString(hash.Sum(nil))
}
