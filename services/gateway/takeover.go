package gateway

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// reconcile compares what the bucket says of a concentrator with what this gateway holds.
func (g *Gateway) reconcile(c meter.ConcentratorID) {
	said, ok := g.claims.get(c)
	if !ok {
		return
	}
	g.mu.Lock()
	h := g.holders[c]
	if h == nil || h.revision == 0 || said.revision <= h.revision {
		g.mu.Unlock()
		return // not ours, or our own claim is still on its way, or ours is the newest
	}
	if said.State == meter.LinkDown {
		g.mu.Unlock()
		g.claim(c) // somebody took us for dead; we are not
		return
	}
	if said.Gateway == g.id {
		g.mu.Unlock()
		return
	}
	delete(g.holders, c)
	g.mu.Unlock()
	g.metrics.takeoversElsewhere.Inc()
	g.yield(c, h, "concentrator "+c.String()+" logged in at gateway "+said.Gateway.String())
}

// claim writes again that this gateway holds c.
func (g *Gateway) claim(c meter.ConcentratorID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.holders[c]; h != nil {
		h.revision = 0
		g.presence.set(h.link.announcement(c, meter.LinkUp))
	}
}

// claimed notes the epoch of our own claim.
func (g *Gateway) claimed(l meter.Link, revision uint64) {
	g.mu.Lock()
	if h := g.holders[l.Concentrator]; h != nil && l.State == meter.LinkUp {
		h.revision = revision
	}
	g.mu.Unlock()
	g.reconcile(l.Concentrator)
}

// yield gives a concentrator up to the newer login: its commands whose frame has not gone out follow it, and the
// older connection, which may be half open, is closed.
func (g *Gateway) yield(c meter.ConcentratorID, h *holding, reason string) {
	g.metrics.countDrops(h)
	_ = h.sub.Unsubscribe() // an error says that NATS is gone, and the subscription with it
	moving := h.link.surrender(c)
	if !g.holdsAny(h.link) {
		h.link.close(reason)
	}
	if len(moving) == 0 {
		return
	}
	g.log.Info("commands follow their concentrator", "concentrator", c, "commands", len(moving), "reason", reason)
	g.wait.Go(func() { g.handOver(context.Background(), c, moving, reason, handOverPatience) })
}

// holdsAny reports whether any concentrator's commands still come to l.
func (g *Gateway) holdsAny(l *link) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(l.names, func(c meter.ConcentratorID) bool {
		h := g.holders[c]
		return h != nil && h.link == l
	})
}

const (
	handOverPatience = 2 * time.Second // interest spreads between NATS servers in milliseconds
	handOverPause    = 20 * time.Millisecond
	handOverAsk      = 250 * time.Millisecond // NATS delivers at most once
)

// handOver sends commands to whoever holds c now, or will within patience and before their deadlines.
func (g *Gateway) handOver(ctx context.Context, c meter.ConcentratorID, moving []*command, reason string, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, held := g.sentinel.holder(c); held && g.listens(ctx, c) {
			break
		}
		waits := pause(ctx, handOverPause) && (!g.draining.Load() || g.leases.others(g.id))
		now := time.Now()
		moving = slices.DeleteFunc(moving, func(m *command) bool {
			over := !waits || !now.Before(m.Deadline)
			if over {
				m.lost(reason)
			}
			return over
		})
		if len(moving) == 0 {
			return
		}
	}
	for _, m := range moving {
		g.memory.drop(m)
		m.resend()
	}
}

// listening is a command without a meter.
const listening = `{}`

// listens reports whether a gateway takes commands for c: one without a meter is refused at once by who holds the link,
// while the sentinel would say that nobody does.
func (g *Gateway) listens(ctx context.Context, c meter.ConcentratorID) bool {
	ctx, cancel := context.WithTimeout(ctx, handOverAsk)
	defer cancel()
	m, err := g.nc.RequestWithContext(ctx, meter.SubjectRead(c), []byte(listening))
	if err != nil {
		return false
	}
	var a meter.Answer
	return json.Unmarshal(m.Data, &a) == nil && a.Error != nil && a.Error.Code == meter.CodeBadCommand
}

// lost ends a command that found no new holder.
func (c *command) lost(reason string) {
	c.Emit(meter.Answer{
		ID: c.ID, Concentrator: c.Target.Concentrator, Meter: c.Asked, Stage: meter.StageFailed, At: time.Now().UTC(),
		Error: meter.Errorf(meter.CodeLinkLost, "the link of the concentrator went down: %s; nothing was sent, ask again", reason),
	})
}

// resend publishes the command for each of its askers as it came, with the deadline it has.
func (c *command) resend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateway.metrics.handedOver.Inc()
	parent := nats.Header{}
	c.traced.handOver(parent)
	for _, k := range c.askers {
		b, err := json.Marshal(meter.Command{
			ID: c.ID, Meter: c.Asked, Timeout: meter.DefaultTimeout, MaxAge: c.MaxAge, Lane: c.Lane, Stages: k.stages,
		})
		if err == nil {
			m := &nats.Msg{Subject: meter.SubjectRead(c.Target.Concentrator), Reply: k.reply, Data: b, Header: maps.Clone(parent)}
			m.Header.Set(meter.HeaderDeadline, meter.FormatDeadline(c.Deadline))
			err = c.gateway.nc.PublishMsg(m)
		}
		if err != nil {
			c.gateway.log.Error("a command could not be handed over", "id", c.ID, "concentrator", c.Target.Concentrator, "err", err)
		}
	}
}

// surrender takes the commands for c whose frame has not gone out off the link's bus.
func (l *link) surrender(c meter.ConcentratorID) []*command {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var moving []*command
	for _, unsent := range l.bus.Unsent() {
		if unsent.Target.Concentrator == c {
			moving = append(moving, unsent.Owner.(*command))
		} else {
			l.bus.Submit(now, unsent) // another concentrator behind the same connection, which stays
		}
	}
	l.arm(now)
	return moving
}

const leaseBeat = 2 * time.Second

// keepLease says every other second that this gateway is alive, and takes down the links of those that are not.
func (g *Gateway) keepLease(ctx context.Context, kv jetstream.KeyValue) {
	tick := time.NewTicker(leaseBeat)
	defer tick.Stop()
	deaf := false // NATS did not take the one before
	expiry := time.AfterFunc(bus.LeaseTTL, func() { g.isolate(true) })
	defer expiry.Stop()
	for {
		beat, cancel := context.WithTimeout(ctx, leaseBeat)
		_, err := kv.PutString(beat, g.id.String(), g.instance)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("NATS does not take this gateway's sign of life; after "+bus.LeaseTTL.String()+" the others will take it for dead", "err", err)
		}
		cancel()
		if err == nil {
			expiry.Reset(bus.LeaseTTL)
			g.isolate(false)
		} else if g.isolated.Load() {
			g.isolate(true) // those who slipped in
		}
		switch {
		case err == nil && deaf:
			g.leases.renew() // what was not heard meanwhile says nothing
		case err == nil:
			g.judge()
		}
		// Who does not hear the others answers for nobody.
		g.sentinel.serve(err == nil && !deaf && g.leases.first(g.id))
		deaf = err != nil
		select {
		case <-tick.C:
		case <-g.leases.left: // its duties may be ours now
		case <-ctx.Done():
			goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), presenceLast)
			_ = kv.Delete(goodbye, g.id.String()) // if not, it expires
			cancel()
			return
		}
	}
}

// judge takes down the links of gateways that are dead. Only who has just reached NATS itself may say so.
func (g *Gateway) judge() {
	others := g.claims.gateways()
	delete(others, g.id)
	for _, dead := range g.leases.expired(others) {
		g.bury(dead)
	}
	for other := range others {
		if g.sentinel.due(other) {
			g.probe(other)
		}
	}
}

// isolate closes every link, and takes no new one, while NATS has been out of reach for so long that the others take this
// gateway for dead: its concentrators are to look for a gateway that people can reach.
func (g *Gateway) isolate(isolated bool) {
	if g.isolated.Swap(isolated) != isolated {
		g.log.Warn("NATS is out of reach, concentrators are sent away, or in reach again", "isolated", isolated)
	}
	if isolated {
		g.closeLinks("its gateway is cut off from NATS")
	}
}

// heldElsewhere reports whether another gateway that is alive holds any of these concentrators.
func (g *Gateway) heldElsewhere(all []meter.ConcentratorID) bool {
	return slices.ContainsFunc(all, func(c meter.ConcentratorID) bool {
		said, ok := g.claims.get(c)
		return ok && said.State == meter.LinkUp && said.Gateway != g.id
	})
}
