//go:build !no_vault

package vault

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"secret-init/sources"
)

// source reads from one Vault. It logs in once and looks every mount up once.
type source struct {
	settings sources.Settings

	loggingIn gate
	session   *session
	wrapped   wrapped
	// refused is an error of the settings or of the login that another
	// attempt would only meet again.
	refused error
	// keeping is set when the session goes on in another process, to which
	// handedOver says it has gone.
	keeping    *kept
	handedOver bool
	// abandoned: nothing was delivered.
	abandoned atomic.Bool

	reading pending

	mu     sync.Mutex
	mounts map[mountKey]mount
	gates  map[mountKey]gate
}

// errOver: only a mistake of our own can meet it.
func errOver() error {
	return sources.Errorf(sources.Invalid, "report it as a bug", "cannot be read: the session with Vault is over")
}

func open(settings sources.Settings) (sources.Source, error) {
	return &source{
		settings:  settings,
		loggingIn: newGate(),
		mounts:    map[mountKey]mount{},
		gates:     map[mountKey]gate{},
	}, nil
}

// gate is a mutex that gives up when a context ends.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return sources.ContextError(ctx)
	}
}

func (g gate) leave() { <-g }

// connect is the session, begun by whoever needs it first.
func (s *source) connect(ctx context.Context) (*session, error) {
	if err := s.loggingIn.enter(ctx); err != nil {
		return nil, err
	}
	defer s.loggingIn.leave()
	if s.session != nil || s.refused != nil {
		return s.session, s.refused
	}
	session, err := s.begin(ctx)
	if err != nil {
		if sources.ClassOf(err) != sources.Unavailable {
			s.refused = err
		}
		return nil, err
	}
	s.session = session
	return session, nil
}

// Fetch reads one document.
func (s *source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	if ctx.Err() != nil {
		return nil, sources.ContextError(ctx)
	}
	session, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	s.reading.begin()
	defer s.reading.end()
	client := session.clientFor(doc)
	op := operation{path: doc.Path, asked: doc.Path}
	req := request{method: http.MethodGet, path: doc.Path}
	if isWrite(doc) {
		// An engine that is written to for an answer has no paths but its API's.
		op.write, req.creates = true, true
		req.method, req.body = http.MethodPut, fields(doc)
	} else {
		if op.mount, err = s.mountOf(ctx, client, doc.Path); err != nil {
			return nil, err
		}
		op.path = op.mount.apiPath(doc.Path)
		req.path, req.creates = op.path, !op.mount.kv2
		if version, ok := doc.Params[paramVersion]; ok {
			if op.mount.known && !op.mount.kv2 {
				return nil, sources.Errorf(sources.Invalid, "leave version= out", "has no versions: a KV version 2 mount alone keeps them")
			}
			op.version = version
			req.query = url.Values{"version": {version}}
		}
	}
	answer, err := client.do(ctx, req)
	if err != nil {
		return nil, err
	}
	if answer.status >= 300 {
		s.forbidden(ctx, session, answer)
		return nil, op.failed(answer)
	}
	document, err := op.document(answer)
	if err == nil {
		s.adopt(session, client, document, answer)
	}
	return document, err
}

// fields are the parameters that the user gave for the request's own body.
// Vault turns their strings into the types that it wants.
func fields(doc sources.Ref) map[string]string {
	body := map[string]string{}
	for name, value := range doc.Params {
		if name != paramMethod && name != paramNamespace {
			body[name] = value
		}
	}
	return body
}

// Abandon has Close revoke what hangs on the token of this start as well.
func (s *source) Abandon() { s.abandoned.Store(true) }

// Close revokes the token if that is ours to do, and nobody else has it now.
func (s *source) Close(ctx context.Context) error {
	if err := s.loggingIn.enter(ctx); err != nil {
		return err
	}
	defer s.loggingIn.leave()
	s.reading.wait(ctx)
	if s.keeping != nil {
		defer func() {
			s.keeping, s.session, s.refused = nil, nil, errOver()
		}()
		if s.handedOver {
			return nil
		}
		return s.giveUp(ctx)
	}
	if s.session == nil {
		return nil
	}
	session := s.session
	s.session, s.wrapped, s.refused = nil, wrapped{}, errOver()
	return session.end(ctx, s.abandoned.Load())
}
