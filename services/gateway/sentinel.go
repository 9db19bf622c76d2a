package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/meter"
)

// sentinel answers commands for concentrators that nobody holds. NATS itself says "no responders", but only while
// nobody listens: whoever watches with `nats sub 'meter.>'` counts as a responder, and the asker would wait in vain.
// One gateway does it for all: the first of those that are alive. It hears every command once more, and for those that
// are held does nothing.
type sentinel struct {
	gateway *Gateway
	sub     *nats.Subscription // nil while another gateway is the first
	waiting atomic.Int64       // commands whose second look is due

	mu      sync.Mutex
	probed  map[meter.GatewayID]time.Time
	stopped bool
	probes  sync.WaitGroup
}

const (
	// secondLook is how long a login may take to be known to us after its own gateway took commands for it. Whether
	// that gateway has heard this command cannot be known, so it is passed on then; its id keeps it from being read twice.
	secondLook  = 60 * time.Millisecond
	maxWaiting  = 10_000 // beyond it the second look is skipped
	probeEvery  = time.Second
	probeAnswer = 500 * time.Millisecond
	buryAtOnce  = 32 // writes to the bucket under way
)

// serve begins or ends the duty.
func (s *sentinel) serve(first bool) {
	g := s.gateway
	switch {
	case first && s.sub == nil:
		sub, err := g.nc.Subscribe(meter.SubjectReads, s.heard)
		if err != nil {
			g.log.Warn("commands for concentrators that are offline cannot be listened for", "err", err)
			return
		}
		s.sub = sub
	case !first && s.sub != nil:
		_ = s.sub.Unsubscribe() // an error says that NATS is gone, and the subscription with it
		s.sub = nil
	}
}

func (s *sentinel) heard(m *nats.Msg) {
	c, err := meter.ConcentratorOf(m.Subject)
	if err != nil {
		s.gateway.refuse(m, c, err)
		return
	}
	if other, held := s.holder(c); held {
		if other != s.gateway.id && s.due(other) {
			s.probe(other, func() { s.wait(m, c) })
		}
		return
	}
	s.wait(m, c)
}

// wait has a second look at a command for which nobody is there.
func (s *sentinel) wait(m *nats.Msg, c meter.ConcentratorID) {
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		s.offline(m, c)
		return
	}
	now := time.Now()
	deadline := now
	if wish, err := meter.ParseCommand(m.Data); err == nil {
		deadline, _ = deadlineOf(m, now.Add(wish.Timeout), now)
	}
	time.AfterFunc(secondLook, func() { s.lookAgain(m, c, deadline) })
}

func (s *sentinel) lookAgain(m *nats.Msg, c meter.ConcentratorID, deadline time.Time) {
	claim, _ := s.gateway.claims.get(c)
	_, held := s.holder(c)
	if !held && claim.Moving && time.Since(claim.Since) < moveAgain && time.Now().Before(deadline) {
		time.AfterFunc(secondLook, func() { s.lookAgain(m, c, deadline) })
		return
	}
	defer s.waiting.Add(-1)
	if !held || !s.gateway.pass(m) {
		s.offline(m, c)
	}
}

// holder returns the gateway that answers for c, if one does.
func (s *sentinel) holder(c meter.ConcentratorID) (meter.GatewayID, bool) {
	g := s.gateway
	if g.holder(c) != nil {
		return g.id, true
	}
	claim, known := g.claims.get(c)
	return claim.Gateway, known && claim.State == meter.LinkUp && claim.Gateway != g.id
}

// probe asks another gateway whether it lives, beside, and calls dead if it does not.
func (s *sentinel) probe(other meter.GatewayID, dead func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.probes.Go(func() {
		if s.gateway.probe(other) {
			dead()
		}
	})
}

// stop ends the duty for good.
func (s *sentinel) stop() {
	s.serve(false)
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.probes.Wait()
}

func (s *sentinel) due(other meter.GatewayID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.probed[other]) < probeEvery {
		return false
	}
	s.probed[other] = now
	return true
}

func (s *sentinel) offline(m *nats.Msg, c meter.ConcentratorID) {
	said, _ := s.gateway.claims.get(c)
	s.gateway.refuse(m, c, said.Offline(c))
}

// probe asks another gateway whether it lives. If its connection to NATS is gone that is known at once: probe returns
// true, and its links are taken down without waiting for its lease.
func (g *Gateway) probe(other meter.GatewayID) (dead bool) {
	ctx, cancel := context.WithTimeout(context.Background(), probeAnswer)
	defer cancel()
	_, err := g.nc.RequestWithContext(ctx, meter.SubjectGateway(other), nil)
	if dead = errors.Is(err, nats.ErrNoResponders); dead {
		g.bury(other)
	}
	return dead
}

// bury takes down the links of a gateway that is dead.
func (g *Gateway) bury(dead meter.GatewayID) {
	orphans := g.claims.of(dead)
	if len(orphans) == 0 {
		return
	}
	g.log.Warn("a gateway has died, its links are taken down", "dead", dead, "links", len(orphans))
	var all errgroup.Group
	all.SetLimit(buryAtOnce)
	for _, l := range orphans {
		all.Go(func() error {
			g.presence.bury(l, "its gateway "+dead.String()+" stopped answering")
			return nil
		})
	}
	_ = all.Wait()
}
