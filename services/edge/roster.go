package edge

import (
	"sync"

	"github.com/dianchao/dianchao/pkg/meter"
)

// roster is the sessions of a node: at most limit of them, and none new once it is closed.
type roster struct {
	limit int

	mu       sync.RWMutex
	sessions map[meter.SessionID]*session
	closed   bool
	gone     chan struct{} // closed once the roster is closed and empty
}

func newRoster(limit int) *roster {
	return &roster{limit: limit, sessions: map[meter.SessionID]*session{}, gone: make(chan struct{})}
}

// add returns CodeDraining if the node leaves and CodeTooManyCommands if it is full.
func (r *roster) add(s *session) *meter.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errDraining
	}
	if len(r.sessions) >= r.limit {
		return meter.Errorf(meter.CodeTooManyCommands, "this edge node already has %d sessions, which is its limit (--max-sessions): try again in a few seconds", r.limit)
	}
	r.sessions[s.id] = s
	return nil
}

// remove takes a session out and forgets its commands: who asked is gone.
func (r *roster) remove(s *session) {
	s.forget()
	s.edge.metrics.sessions[s.dialect].Dec()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.id)
	if r.closed && len(r.sessions) == 0 {
		close(r.gone)
	}
}

func (r *roster) find(id meter.SessionID) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[id]
}

func (r *roster) all() []*session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		out = append(out, s)
	}
	return out
}

// close lets no new session in; the channel it returns is closed when the last one has left.
func (r *roster) close() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if len(r.sessions) == 0 {
		close(r.gone)
	}
	return r.gone
}
