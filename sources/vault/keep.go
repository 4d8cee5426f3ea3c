//go:build !no_vault

package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"secret-init/sources"
)

// kept is a session as one process leaves it to the next.
type kept struct {
	// Token is one that we obtained; nil when the user gave it.
	Token *keptToken
	// Retired are those that we obtained before: leases that are in use may
	// hang on them until they end.
	Retired []keptToken
	// Given is the life of the user's own token, and GivenTo its owner.
	Given   life
	GivenTo string
	Leases  []keptLease
	// Unwrapped is what VAULT_WRAPPED_TOKEN gave: it gives it once.
	Unwrapped, UnwrappedSecretID string
}

type keptToken struct {
	Token string
	life
	// Revocable: a batch token is not.
	Revocable bool
}

// life is how long a token lives. A TTL of zero is for ever.
type life struct {
	Granted   time.Time
	TTL       time.Duration
	Renewable bool
}

// due is two thirds through; the zero time is never.
func (l life) due() time.Time {
	if l.TTL == 0 {
		return time.Time{}
	}
	return l.Granted.Add(l.TTL * 2 / 3)
}

// isDue allows for the jitter of whoever calls: it comes up to a tenth early.
func (l life) isDue() bool {
	return l.TTL > 0 && time.Since(l.Granted) >= l.TTL*6/10
}

func (l life) over() bool { return l.TTL > 0 && time.Since(l.Granted) >= l.TTL }

// keptLease is a lease that we took out.
type keptLease struct {
	ID, Namespace string
	// Owner is the token by which it came, as ownerOf calls it.
	Owner string
	Ends  time.Time
}

// ownerOf is a name of a token that does not tell it.
func ownerOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}

// Resume implements sources.Keeper.
func (s *source) Resume(state []byte) error {
	s.keeping = &kept{}
	if len(state) > 0 && json.Unmarshal(state, s.keeping) != nil {
		// Logging in again makes up for it.
		s.keeping = &kept{}
	}
	s.wrapped = wrapped{token: s.keeping.Unwrapped, secretID: s.keeping.UnwrappedSecretID}
	return nil
}

// State implements sources.Keeper.
func (s *source) State() (state []byte, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keeping
	if k == nil {
		return nil, time.Time{}
	}
	s.handedOver = true
	k.Unwrapped, k.UnwrappedSecretID = s.wrapped.token, s.wrapped.secretID
	k.Leases = slices.DeleteFunc(k.Leases, func(l keptLease) bool { return time.Now().After(l.Ends) })
	k.Retired = slices.DeleteFunc(k.Retired, func(t keptToken) bool { return t.over() })
	switch {
	case k.Token != nil:
		next = k.Token.due()
	case k.Given.Renewable:
		next = k.Given.due()
	}
	if k.Token == nil && len(k.Retired) == 0 && len(k.Leases) == 0 && k.Unwrapped == "" && k.UnwrappedSecretID == "" && next.IsZero() {
		return nil, time.Time{}
	}
	state, err := json.Marshal(k)
	if err != nil {
		return nil, time.Time{}
	}
	return state, next
}

// begin is the session: the one before with its token renewed, or a new one.
func (s *source) begin(ctx context.Context) (*session, error) {
	k := s.keeping
	if k == nil {
		return login(ctx, s.settings, &s.wrapped)
	}
	var old *session
	if k.Token != nil && !k.Token.over() {
		client, err := newClient(s.settings)
		if err != nil {
			return nil, err
		}
		client.api.SetToken(k.Token.Token)
		old = &session{client: client, revoke: k.Token.Revocable}
		if !k.Token.isDue() {
			return old, nil
		}
		// Until it is over, a Vault that is down may come back.
		if err := renewToken(ctx, client, &k.Token.life); err == nil || sources.ClassOf(err) == sources.Unavailable {
			return old, nil
		}
	}
	session, err := login(ctx, s.settings, &s.wrapped)
	if err != nil {
		if old != nil {
			s.settings.Warn("vault: the token cannot be renewed any more, and the login for a new one failed: " + err.Error())
			return old, nil
		}
		return nil, err
	}
	token := session.client.api.Token()
	if session.loggedIn {
		if k.Token != nil {
			k.Retired = append(k.Retired, *k.Token)
		}
		k.Token = &keptToken{Token: token, life: session.obtained, Revocable: session.revoke}
		return session, nil
	}
	if owner := ownerOf(token); k.GivenTo != owner {
		k.GivenTo, k.Given = owner, lookUpToken(ctx, session.client)
	}
	if k.Given.Renewable && k.Given.isDue() {
		if err := renewToken(ctx, session.client, &k.Given); err != nil && sources.ClassOf(err) != sources.Unavailable {
			k.Given.Renewable = false
			s.settings.Warn("vault: the token that was given cannot be renewed, and ends at " + k.Given.Granted.Add(k.Given.TTL).UTC().Format(time.RFC3339))
		}
	}
	return session, nil
}

// renewToken prolongs the client's token. That it was prolonged by less than
// asked for is an error: it is near its last end.
func renewToken(ctx context.Context, client *client, l *life) error {
	if !l.Renewable {
		return sources.Errorf(sources.Denied, "", "cannot be renewed")
	}
	answer, err := client.do(ctx, request{method: http.MethodPut, path: "auth/token/renew-self", body: map[string]any{"increment": int64(l.TTL / time.Second)}})
	if err != nil {
		return err
	}
	defer clear(answer.body)
	if answer.status >= 300 {
		return operation{path: "auth/token/renew-self", write: true}.failed(answer)
	}
	var told struct {
		Auth struct {
			LeaseDuration int64 `json:"lease_duration"`
			Renewable     bool  `json:"renewable"`
		} `json:"auth"`
	}
	if json.Unmarshal(answer.body, &told) != nil || told.Auth.LeaseDuration <= 0 {
		return sources.Errorf(sources.Denied, "", "cannot be renewed")
	}
	asked := l.TTL
	got := time.Duration(told.Auth.LeaseDuration) * time.Second
	l.Granted, l.Renewable = time.Now(), told.Auth.Renewable
	if got < asked*9/10 {
		l.TTL = got
		return sources.Errorf(sources.Denied, "", "is near its last end")
	}
	return nil
}

// lookUpToken is the life of the client's token; unknown where Vault does not
// tell. A default policy allows the question.
func lookUpToken(ctx context.Context, client *client) life {
	answer, err := client.do(ctx, request{method: http.MethodGet, path: "auth/token/lookup-self"})
	if err != nil || answer.status >= 300 {
		return life{}
	}
	defer clear(answer.body)
	var told struct {
		Data struct {
			TTL       int64 `json:"ttl"`
			Renewable bool  `json:"renewable"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.body, &told) != nil {
		return life{}
	}
	return life{Granted: time.Now(), TTL: time.Duration(told.Data.TTL) * time.Second, Renewable: told.Data.Renewable}
}

// adopt notes what hangs on the session's token: in a session that is kept,
// for renewal.
func (s *source) adopt(session *session, client *client, document *sources.Document, answer *answer) {
	if s.keeping == nil {
		session.adopt(document, answer)
		return
	}
	if lease := document.Lease; lease.ID != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keeping.Leases = append(s.keeping.Leases, keptLease{
			ID: lease.ID, Namespace: client.namespace, Owner: ownerOf(session.client.api.Token()), Ends: time.Now().Add(lease.Duration),
		})
	}
}

// Renew implements sources.Renewer.
func (s *source) Renew(ctx context.Context, doc sources.Ref, lease sources.Lease, due bool) (sources.Lease, error) {
	session, err := s.connect(ctx)
	if err != nil {
		return sources.Lease{}, err
	}
	i := -1
	if s.keeping != nil {
		owner := ownerOf(session.client.api.Token())
		s.mu.Lock()
		i = slices.IndexFunc(s.keeping.Leases, func(l keptLease) bool { return l.ID == lease.ID && l.Owner == owner })
		s.mu.Unlock()
	}
	switch {
	case i < 0:
		return sources.Lease{}, sources.Errorf(sources.Denied, "", "has a lease that ends with its token")
	case !due:
		return lease, nil
	case !lease.Renewable:
		return sources.Lease{}, sources.Errorf(sources.Denied, "", "has a lease that cannot be renewed")
	}
	client := session.clientFor(doc)
	answer, err := client.do(ctx, request{method: http.MethodPut, path: "sys/leases/renew",
		body: map[string]any{"lease_id": lease.ID, "increment": int64(lease.Duration / time.Second)}})
	if err != nil {
		return sources.Lease{}, err
	}
	if answer.status >= 300 {
		s.forbidden(ctx, session, answer)
		return sources.Lease{}, operation{path: "sys/leases/renew", write: true}.failed(answer)
	}
	var told struct {
		LeaseDuration int64 `json:"lease_duration"`
		Renewable     bool  `json:"renewable"`
	}
	if json.Unmarshal(answer.body, &told) != nil || told.LeaseDuration <= 0 {
		return sources.Lease{}, sources.Errorf(sources.Denied, "", "has a lease that cannot be renewed")
	}
	lease.Duration, lease.Renewable = time.Duration(told.LeaseDuration)*time.Second, told.Renewable
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeping.Leases[i].Ends = time.Now().Add(lease.Duration)
	return lease, nil
}

// forbidden: when Vault says no to a token that we obtained, somebody may have
// revoked it. Then the next request logs in again.
func (s *source) forbidden(ctx context.Context, session *session, a *answer) {
	if s.keeping == nil || a.status != http.StatusForbidden {
		return
	}
	look, err := session.client.do(ctx, request{method: http.MethodGet, path: "auth/token/lookup-self"})
	if err != nil || look.status != http.StatusForbidden || s.loggingIn.enter(ctx) != nil {
		return
	}
	defer s.loggingIn.leave()
	if s.session == session && s.keeping.Token != nil {
		s.session, s.keeping.Token = nil, nil
	}
}

// giveUp revokes all that was obtained: tokens, with which their leases go,
// and leases of a token that is not ours to revoke.
func (s *source) giveUp(ctx context.Context) error {
	k := s.keeping
	tokens := slices.Clone(k.Retired)
	if k.Token != nil {
		tokens = append(tokens, *k.Token)
	}
	session := s.session
	if session == nil && (len(tokens) > 0 || len(k.Leases) > 0) {
		var err error
		if session, err = s.begin(ctx); err != nil {
			return could("not revoke what this start obtained", err)
		}
	}
	if session == nil {
		return nil
	}
	defer session.client.transport.CloseIdleConnections()
	current := session.client.api.Token()
	if session.revoke && (k.Token == nil || k.Token.Token != current) {
		// The user's own, to be revoked by the user's wish.
		tokens = append(tokens, keptToken{Token: current, Revocable: true})
	}
	gone := map[string]bool{}
	var requests []request
	for _, token := range tokens {
		if token.Revocable && !token.over() {
			gone[ownerOf(token.Token)] = true
			requests = append(requests, request{method: http.MethodPut, path: "auth/token/revoke-self", token: token.Token})
		}
	}
	clients := make([]*client, len(requests), len(requests)+len(k.Leases))
	for i := range clients {
		clients[i] = session.client
	}
	for _, lease := range k.Leases {
		if !gone[lease.Owner] && time.Now().Before(lease.Ends) {
			requests = append(requests, request{method: http.MethodPut, path: "sys/leases/revoke", body: map[string]any{"lease_id": lease.ID}})
			clients = append(clients, session.client.withNamespace(lease.Namespace))
		}
	}
	failures := make([]error, len(requests))
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() {
			answer, err := clients[i].do(ctx, r)
			if err == nil && answer.status >= 300 {
				err = sources.Errorf(sources.Denied, `allow it in a policy of the token: path "`+r.path+`" { capabilities = ["update"] }`, "Vault answered %d to %s", answer.status, r.path)
			}
			failures[i] = err
		})
	}
	all.Wait()
	for _, err := range failures {
		if err != nil {
			return could("not revoke what this start obtained", err)
		}
	}
	return nil
}

func could(what string, err error) error {
	if e, ok := errors.AsType[*sources.Error](err); ok {
		return &sources.Error{Class: e.Class, Subject: "vault", What: "could " + what + ": " + e.What, Hint: e.Hint}
	}
	return err
}
