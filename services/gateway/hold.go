package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/meter"
)

// holding is the link that a concentrator's commands go to.
type holding struct {
	link     *link
	sub      *nats.Subscription
	revision uint64 // of our claim in the bucket; 0 until it is made
	dropped  int    // commands that NATS dropped, as far as they were counted
}

// hold makes l the link that c's commands come to. A link that held c before is older, and gives way: the newest
// login wins.
func (g *Gateway) hold(l *link, c meter.ConcentratorID) {
	sub, err := g.nc.ChanQueueSubscribe(meter.SubjectRead(c), meter.Queue, g.commands)
	if err != nil {
		l.close("its commands cannot be subscribed to: " + err.Error())
		return
	}
	g.mu.Lock()
	older := g.holders[c]
	g.holders[c] = &holding{link: l, sub: sub}
	g.keepLog(c, l.frames)
	g.presence.set(l.announcement(c, meter.LinkUp))
	g.tellWaiting()
	g.mu.Unlock()
	if older != nil {
		g.metrics.takeoversHere.Inc()
		g.yield(c, older, "concentrator "+c.String()+" logged in again from "+l.conn.RemoteAddr().String())
	}
}

// release forgets a link that ended, and what it still holds. If it broke, what had not been sent waits for its
// concentrators, which are likely to dial in again.
func (g *Gateway) release(l *link) {
	g.forget(l)
	for c, unsent := range l.leftBehind() {
		g.wait.Go(func() { g.handOver(context.Background(), c, unsent, l.reason, meter.MovingPatience) })
	}
}

func (g *Gateway) forget(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.links, l)
	for _, c := range l.names {
		h := g.holders[c]
		if h == nil || h.link != l {
			continue // a newer link holds it
		}
		delete(g.holders, c)
		g.metrics.countDrops(h)
		_ = h.sub.Unsubscribe()
		g.presence.set(l.announcement(c, meter.LinkDown))
	}
}

// leftBehind takes what had not been sent off the bus of a link that broke.
func (l *link) leftBehind() map[meter.ConcentratorID][]*command {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.broke {
		return nil
	}
	unsent := make(map[meter.ConcentratorID][]*command)
	for _, u := range l.bus.Unsent() {
		c := u.Target.Concentrator
		unsent[c] = append(unsent[c], u.Owner.(*command))
	}
	return unsent
}

func (l *link) announcement(c meter.ConcentratorID, s meter.LinkState) meter.Link {
	a := meter.Link{
		Concentrator: c, State: s, Since: l.since.UTC().Truncate(time.Millisecond),
		Gateway: l.gateway.id, Driver: l.driver.Name(), Remote: l.conn.RemoteAddr().String(),
	}
	if s == meter.LinkDown {
		a.Since = time.Now().UTC().Truncate(time.Millisecond)
		l.mu.Lock()
		a.Reason, a.Moving = l.reason, l.broke
		l.mu.Unlock()
	}
	return a
}

func (g *Gateway) holder(c meter.ConcentratorID) *link {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.holders[c]; h != nil {
		return h.link
	}
	return nil
}

func (g *Gateway) held() []meter.ConcentratorID {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]meter.ConcentratorID, 0, len(g.holders))
	for c := range g.holders {
		all = append(all, c)
	}
	return all
}

// Holds returns a channel that is closed once the gateway holds the links of n concentrators.
func (g *Gateway) Holds(n int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := waiting{n, make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.tellWaiting()
	return w.reached
}

type waiting struct {
	n       int
	reached chan struct{}
}

// tellWaiting closes what Holds handed out and has come true. mu is held.
func (g *Gateway) tellWaiting() {
	g.waiting = slices.DeleteFunc(g.waiting, func(w waiting) bool {
		if len(g.holders) < w.n {
			return false
		}
		close(w.reached)
		return true
	})
}
