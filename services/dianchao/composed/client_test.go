//go:build composed

package composed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/services/simulator"
)

// As in web/dianchao.js.
const (
	timeout      = 15 * time.Second
	grace        = 2 * time.Second
	silence      = 10 * time.Second
	steady       = 10 * time.Second
	firstBackoff = 500 * time.Millisecond
	mostBackoff  = 30 * time.Second
)

// think is how long somebody takes from one click to the next, half as much or half as much again.
const think = time.Second

// client is a person with a page open: what web/dianchao.js does, with one goroutine for what a page does in its event
// loop. Whether earlier clicks have been answered does not keep it from clicking.
type client struct {
	name   string
	url    string
	town   []simulator.Entry
	row    *row
	events chan func()
	ctx    context.Context
	owned  sync.WaitGroup // goroutines of its sessions

	current *session // that new reads go to; nil while it waits to reconnect
	leaving map[*session]bool
	pending map[string]*command
	ended   map[string]*command
	attempt int
	retry   *timer
	away    time.Time // since when there is no session; zero while there is one
	clicks  int
}

func newClient(ctx context.Context, number int, url string, town []simulator.Entry, r *row) *client {
	return &client{
		ctx: ctx, name: fmt.Sprintf("%s-%d", r.tag, number), url: url, town: town, row: r, events: make(chan func(), 64),
		leaving: make(map[*session]bool), pending: make(map[string]*command), ended: make(map[string]*command),
	}
}

// run clicks until its context ends.
func (c *client) run() {
	defer c.owned.Wait()
	c.away = time.Now()
	c.connect()
	click := time.NewTimer(rand.N(think))
	defer click.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-click.C:
			c.click()
			click.Reset(think/2 + rand.N(think))
		case event := <-c.events:
			event()
		}
	}
}

// post has f called by the client's goroutine.
func (c *client) post(f func()) {
	select {
	case c.events <- f:
	case <-c.ctx.Done():
	}
}

// timer is stopped for certain, also if its call waits in line already: it is used by the client's goroutine alone.
type timer struct {
	*time.Timer
	stopped bool
}

func (c *client) after(d time.Duration, f func()) *timer {
	t := new(timer)
	t.Timer = time.AfterFunc(d, func() {
		c.post(func() {
			if !t.stopped {
				f()
			}
		})
	})
	return t
}

func (t *timer) stop() {
	if t != nil {
		t.stopped = true
		t.Stop()
	}
}

func (c *client) click() {
	c.clicks++
	e := c.town[rand.IntN(len(c.town))]
	now := time.Now()
	k := &command{id: fmt.Sprintf("%s-%d", c.name, c.clicks), entry: e, clicked: now, deadline: now.Add(timeout)}
	if !c.row.begin(k) {
		return
	}
	c.pending[k.id] = k
	k.expiry = c.after(timeout+grace, func() { c.giveUp(k) })
	if c.open() {
		c.ask(k)
	}
}

func (c *client) open() bool { return c.current != nil && c.current.greeted && !c.current.draining }

func (c *client) ask(k *command) {
	k.session, k.asked = c.current, time.Now()
	k.asks++
	left := max(1, time.Until(k.deadline).Round(time.Millisecond).Milliseconds())
	c.current.send(map[string]any{
		"type": "read", "id": k.id, "concentrator": k.entry.Concentrator, "meter": k.entry.Meter, "timeout_ms": left, "stages": true,
	})
}

func (c *client) askWaiting() {
	if !c.open() {
		return
	}
	for _, k := range c.pending {
		if k.session == nil {
			c.ask(k)
		}
	}
}

func (c *client) giveUp(k *command) {
	k.connected = k.session != nil
	c.end(k, "no_answer", time.Now())
}

func (c *client) end(k *command, outcome string, at time.Time) {
	delete(c.pending, k.id)
	c.ended[k.id] = k
	k.expiry.stop()
	k.outcome, k.ended = outcome, at
	c.row.end(k)
}

func (c *client) receive(s *session, m message, at time.Time) {
	s.silence.stop()
	s.silence = nil
	switch m.Type {
	case "hello":
		c.greeted(s, m)
	case "answer":
		c.answered(m, at)
		if s != c.current {
			c.askWaiting()
		}
		if c.leaving[s] {
			c.leaveIfIdle(s)
		}
	case "draining":
		if s == c.current {
			c.drain(time.Duration(m.ReconnectMS) * time.Millisecond)
		}
	case "error":
		c.refused(m, at)
	}
}

func (c *client) greeted(s *session, m message) {
	s.greeted, s.edge = true, m.Edge
	s.beat = c.after(time.Duration(m.PingMS)*time.Millisecond, func() { s.ping(m.PingMS) })
	if s == c.current && !c.away.IsZero() {
		c.row.wasAway(time.Since(c.away))
		c.away = time.Time{}
	}
	c.askWaiting()
	for old := range c.leaving {
		c.leaveIfIdle(old)
	}
}

func (c *client) answered(m message, at time.Time) {
	k := c.pending[m.ID]
	switch {
	case k == nil:
		if before := c.ended[m.ID]; before == nil {
			c.row.complain("%s was answered to %s, who never asked", m.ID, c.name)
		} else if before.outcome != "no_answer" {
			c.row.complain("%s ended as %s, then came: %s", before, before.outcome, m.raw)
		}
	case m.Stage == "done":
		k.answer = m.raw
		c.end(k, "done", at)
	case m.Stage == "failed" && m.Error.Code == "draining":
		k.session = nil // for the next session
	case m.Stage == "failed":
		k.answer = m.raw
		c.end(k, m.Error.Code, at)
	default:
		k.stage = m.Stage
	}
}

func (c *client) refused(m message, at time.Time) {
	c.row.complain("an edge could not use a message: %s", m.raw)
	if k := c.pending[m.ID]; k != nil {
		k.answer = m.raw
		c.end(k, m.Error.Code, at)
	}
}

// drain makes the next connection before this one is given up.
func (c *client) drain(reconnect time.Duration) {
	s := c.current
	s.draining = true
	c.connectAfter(reconnect, func() {
		if c.current == s {
			c.leaving[s] = true
			c.leaveIfIdle(s)
		}
		c.connect()
	})
}

// reload is what F5 does, but that the clicks are not forgotten.
func (c *client) reload() {
	if s := c.current; s != nil && !s.draining {
		s.leave()
		c.over(s, websocket.StatusNormalClosure)
	}
}

func (c *client) leaveIfIdle(s *session) {
	for _, k := range c.pending {
		if k.session == s {
			return
		}
	}
	delete(c.leaving, s)
	s.leave()
}

func (c *client) over(s *session, code websocket.StatusCode) {
	for _, k := range c.pending {
		if k.session == s {
			k.session = nil
		}
	}
	if c.leaving[s] || s != c.current {
		delete(c.leaving, s)
		c.askWaiting()
		return
	}
	c.current = nil
	if c.away.IsZero() {
		c.away = time.Now()
	}
	if code >= 4500 && code <= 4999 {
		c.row.complain("%s was told not to come back: %d", c.name, code)
		return
	}
	if c.retry != nil {
		return // it was told when to come back
	}
	if time.Since(s.began) > steady {
		c.attempt = 0
	}
	if code == websocket.StatusGoingAway {
		c.attempt = max(c.attempt, 2)
	}
	most := min(mostBackoff, firstBackoff<<c.attempt)
	c.attempt = min(c.attempt+1, 10)
	c.connectAfter(most/2+rand.N(most/2), c.connect)
}

func (c *client) connectAfter(d time.Duration, connect func()) {
	c.retry.stop()
	c.retry = c.after(d, connect)
}

func (c *client) connect() {
	c.retry.stop()
	c.retry = nil
	s := &session{client: c, began: time.Now()}
	ctx, cancel := context.WithCancel(c.ctx)
	s.cancel = cancel
	c.current = s
	s.expect()
	c.owned.Go(func() {
		defer cancel()
		code := s.read(ctx)
		c.post(func() { s.end(code) })
	})
}
