package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/meter"
)

// sentinel answers commands for concentrators that nobody holds. NATS itself says "no responders", but only while
// nobody listens: whoever watches with `nats sub 'meter.>'` counts as a responder, and the asker would wait in vain.
// One gateway does it for all: the first of those that are alive. It hears every command once more, and for those that
// are held does nothing. At every gateway, what came for a link that went down just then waits here, too.
type sentinel struct {
	gateway *Gateway
	sub     *nats.Subscription // nil while another gateway is the first

	mu      sync.Mutex
	waiting map[string]*waiter // by where their answers go: who asks again waits once
	probed  map[meter.GatewayID]time.Time
	stopped bool
	probes  sync.WaitGroup
}

// waiter is a command for which nobody is there, until its second look.
type waiter struct {
	key          string
	message      *nats.Msg
	concentrator meter.ConcentratorID
	since        time.Time
	deadline     time.Time
	timer        *time.Timer
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
	now := time.Now()
	w := &waiter{key: m.Reply, message: m, concentrator: c, since: now, deadline: now}
	if w.key == "" {
		w.key = nuid.Next() // read, and tell nobody
	}
	if wish, err := meter.ParseCommand(m.Data); err == nil {
		w.deadline, _ = deadlineOf(m, now.Add(wish.Timeout), now)
	}
	s.mu.Lock()
	if s.waiting[w.key] != nil {
		s.mu.Unlock()
		return
	}
	stopped, waits := s.stopped, !s.stopped && len(s.waiting) < maxWaiting
	if waits {
		s.waiting[w.key] = w
		w.timer = time.AfterFunc(secondLook, func() { s.lookAgain(w) })
	}
	s.mu.Unlock()
	if !waits && !(stopped && s.gateway.pass(m)) {
		s.offline(w)
	}
}

// held counts the commands that wait.
func (s *sentinel) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

func (s *sentinel) lookAgain(w *waiter) {
	claim, _ := s.gateway.claims.get(w.concentrator)
	_, held := s.holder(w.concentrator)
	moving := claim.Moving && time.Since(claim.Since) < meter.MovingPatience
	// We have given it up a moment ago, and the bucket does not say so yet.
	moving = moving || claim.State == meter.LinkUp && claim.Gateway == s.gateway.id && time.Since(w.since) < meter.MovingPatience
	s.mu.Lock()
	live := s.waiting[w.key] == w
	if live && !held && moving && time.Now().Before(w.deadline) {
		w.timer.Reset(secondLook)
		live = false
	}
	if live {
		delete(s.waiting, w.key)
	}
	s.mu.Unlock()
	if live && (!held || !s.gateway.pass(w.message)) {
		s.offline(w)
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

// stop ends the duty for good. What waits is asked once more, for whoever has it now.
func (s *sentinel) stop() {
	s.serve(false)
	s.mu.Lock()
	s.stopped = true
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, w := range waiting {
		w.timer.Stop()
		if !s.gateway.pass(w.message) {
			s.offline(w)
		}
	}
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

func (s *sentinel) offline(w *waiter) {
	said, _ := s.gateway.claims.get(w.concentrator)
	s.gateway.refuse(w.message, w.concentrator, said.Offline(w.concentrator))
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
