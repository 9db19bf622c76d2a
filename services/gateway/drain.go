package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// drainPace is between two links that are given up, so that the other gateways are not run over.
const drainPace = 2 * time.Millisecond

// drain gives up every link within config.Drain: what is on its wire is finished, what is not follows the concentrator to
// the gateway at which it logs in next. One after another, in no order, so that a town does not move all at once.
func (g *Gateway) drain() {
	g.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Drain)
	defer cancel()
	began := time.Now()
	all := g.held()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	pace := min(drainPace, g.config.Drain/time.Duration(2*max(1, len(all))))
	elsewhere := g.leases.others(g.id)
	var leaving sync.WaitGroup
	for _, c := range all {
		leaving.Go(func() { g.leave(ctx, c, elsewhere) })
		pause(ctx, pace)
	}
	leaving.Wait()
	g.log.Info("drained", "links", len(all), "took", time.Since(began).Round(time.Millisecond))
}

// leave gives up one concentrator. elsewhere says that another gateway is there to take it.
func (g *Gateway) leave(ctx context.Context, c meter.ConcentratorID, elsewhere bool) {
	const reason = "its gateway is being stopped"
	g.mu.Lock()
	h := g.holders[c]
	if h == nil {
		g.mu.Unlock()
		return
	}
	delete(g.holders, c)
	gone := h.link.announcement(c, meter.LinkDown)
	gone.Reason, gone.Moving = reason, elsewhere
	g.presence.set(gone)
	g.mu.Unlock()
	g.metrics.countDrops(h)
	_ = h.sub.Unsubscribe() // an error says that NATS is gone, and the subscription with it
	left := h.link.surrender(c)
	var following sync.WaitGroup
	if elsewhere && len(left) > 0 {
		following.Go(func() { g.handOver(ctx, c, left, reason, g.config.Drain) })
	} else {
		for _, m := range left {
			m.lost(reason)
		}
	}
	h.link.land(ctx)
	if !g.holdsAny(h.link) {
		h.link.close(reason)
	}
	following.Wait()
}

// land waits until nothing is on the wire, or ctx ends.
func (l *link) land(ctx context.Context) {
	l.mu.Lock()
	if l.bus.Flying() == 0 || l.reason != "" {
		l.mu.Unlock()
		return
	}
	if l.landed == nil {
		l.landed = make(chan struct{})
	}
	landed := l.landed
	l.mu.Unlock()
	select {
	case <-landed:
	case <-ctx.Done():
	}
}

// tellLanded lets land return once nothing is on the wire. mu is held.
func (l *link) tellLanded() {
	if l.landed != nil && (l.bus.Flying() == 0 || l.reason != "") {
		close(l.landed)
		l.landed = nil
	}
}
