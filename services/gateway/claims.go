package gateway

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// claims is what all gateways say of links: the content of the bucket links. A claim's revision is its epoch: of
// two gateways that claim a concentrator, the one with the higher revision holds it.
type claims struct {
	gateway *Gateway
	known   chan struct{} // closed once the bucket has been read for the first time

	mu    sync.Mutex
	links map[meter.ConcentratorID]claim
	read  bool // once
}

type claim struct {
	meter.Link
	revision uint64
}

func (c *claims) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links = make(map[meter.ConcentratorID]claim)
}

func (c *claims) Change(e jetstream.KeyValueEntry) {
	id, err := meter.ParseConcentratorID(e.Key())
	if err != nil {
		return // none of ours
	}
	var l meter.Link
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &l) != nil {
		c.mu.Lock()
		delete(c.links, id)
		c.mu.Unlock()
		return
	}
	c.mu.Lock()
	c.links[id] = claim{l, e.Revision()}
	c.mu.Unlock()
	c.gateway.reconcile(id)
}

// Complete takes back what a former life of this gateway still claims, and claims what was lost while NATS was away.
func (c *claims) Complete() {
	c.mu.Lock()
	if !c.read {
		c.read = true
		close(c.known)
	}
	var orphans []claim
	for _, l := range c.links {
		if l.Gateway == c.gateway.id && l.State == meter.LinkUp && c.gateway.holder(l.Concentrator) == nil {
			orphans = append(orphans, l)
		}
	}
	c.mu.Unlock()
	for _, l := range orphans {
		c.gateway.presence.bury(l, "its gateway was restarted")
	}
	for _, id := range c.gateway.held() {
		if _, known := c.get(id); !known {
			c.gateway.claim(id) // the bucket was lost
		}
	}
}

func (c *claims) get(id meter.ConcentratorID) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.links[id]
	return l, ok
}

// of returns the links that a gateway says are up.
func (c *claims) of(g meter.GatewayID) []claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []claim
	for _, l := range c.links {
		if l.Gateway == g && l.State == meter.LinkUp {
			all = append(all, l)
		}
	}
	return all
}

// gateways returns who claims any link.
func (c *claims) gateways() map[meter.GatewayID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[meter.GatewayID]bool)
	for _, l := range c.links {
		if l.State == meter.LinkUp {
			all[l.Gateway] = true
		}
	}
	return all
}

// leases is which gateways are alive: the content of the bucket gateways, and when we last heard of each. Our own
// clock alone counts, and while NATS is away nobody is declared dead.
type leases struct {
	left chan struct{} // has a token when a gateway has left since it was last received from

	mu    sync.Mutex
	heard map[meter.GatewayID]time.Time
}

// Begin gives everybody a whole lease: while the bucket was out of sight, nobody could be heard.
func (l *leases) Begin() { l.renew() }

func (l *leases) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.heard == nil {
		l.heard = make(map[meter.GatewayID]time.Time)
	}
	for g := range l.heard {
		l.heard[g] = now
	}
}

func (l *leases) Change(e jetstream.KeyValueEntry) {
	g, err := meter.ParseGatewayID(e.Key())
	if err != nil {
		return // none of ours
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Operation() != jetstream.KeyValuePut {
		delete(l.heard, g) // it has left
		select {
		case l.left <- struct{}{}:
		default:
		}
		return
	}
	l.heard[g] = time.Now()
}

func (l *leases) Complete() {}

// alive reports whether a gateway was heard of lately.
func (l *leases) alive(g meter.GatewayID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, known := l.heard[g]
	return known && time.Since(last) <= bus.LeaseTTL
}

// others reports whether any other gateway is alive.
func (l *leases) others(self meter.GatewayID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g, last := range l.heard {
		if g != self && time.Since(last) <= bus.LeaseTTL {
			return true
		}
	}
	return false
}

// first reports whether of all gateways that are alive this is the one with the first id: what only one has to do, it does.
func (l *leases) first(self meter.GatewayID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for g, last := range l.heard {
		if g.String() < self.String() && now.Sub(last) <= bus.LeaseTTL {
			return false
		}
	}
	return true
}

// expired returns those of some gateways that were not heard of for a whole lease. One that is asked about for the
// first time gets a lease from now on.
func (l *leases) expired(some map[meter.GatewayID]bool) []meter.GatewayID {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var dead []meter.GatewayID
	for g := range some {
		last, known := l.heard[g]
		switch {
		case l.heard == nil:
		case !known:
			l.heard[g] = now
		case now.Sub(last) > bus.LeaseTTL:
			dead = append(dead, g)
		}
	}
	return dead
}

var (
	_ bus.Follower = (*claims)(nil)
	_ bus.Follower = (*leases)(nil)
)
