//go:build !no_vault

package vault

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lingerTime is how long a request that creates something goes on after a
// start was interrupted: a client that goes away leaves Vault with a token or a
// database user that nobody knows of, and that nobody can revoke. Whoever
// closes the source waits a little longer.
const lingerTime = 1500 * time.Millisecond

// linger is a context that outlives ctx by lingerTime when that is cancelled.
// Its deadline is kept: who has not answered by then has had the time.
func linger(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return ctx, func() {}
	}
	lingering, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
			return
		}
		time.AfterFunc(lingerTime, cancel)
	})
	return lingering, func() { stop(); cancel() }
}

// pending counts what is under way.
type pending struct {
	mu   sync.Mutex
	n    int
	idle chan struct{}
}

func (p *pending) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
}

func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n--; p.n == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// wait waits until nothing is under way, or ctx ends.
func (p *pending) wait(ctx context.Context) {
	p.mu.Lock()
	if p.n == 0 {
		p.mu.Unlock()
		return
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
