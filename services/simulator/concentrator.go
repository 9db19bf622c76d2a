package simulator

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

const (
	dialTimeout    = 5 * time.Second
	firstBackoff   = 250 * time.Millisecond
	longestBackoff = 15 * time.Second
)

// concentrator is one box in a basement: one goroutine, one connection at a time, nothing stored for a meter
// until it is asked.
type concentrator struct {
	town   *Simulator
	number int
	draws  *rand.PCG     // what befalls requests; used by the concentrator's goroutine alone
	wake   chan struct{} // ends a wait for the plug or for the next dial

	mu        sync.Mutex
	conn      net.Conn // nil while the link is down
	connected bool     // at least once
	unplugged bool
	since     time.Time   // of the link's or the plug's last change
	frames    map[int]int // requests by meter number
}

func newConcentrator(town *Simulator, number int) *concentrator {
	return &concentrator{
		town: town, number: number,
		draws: rand.NewPCG(town.config.Seed, uint64(number)),
		wake:  make(chan struct{}, 1),
	}
}

// run connects and answers until ctx ends.
func (c *concentrator) run(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if c.isUnplugged() {
			select {
			case <-c.wake:
			case <-ctx.Done():
			}
			attempt = -1
			continue
		}
		served, err := c.connect(ctx)
		if served {
			attempt = 0
		}
		if ctx.Err() != nil || c.isUnplugged() {
			continue
		}
		c.town.complaint.Do(func() {
			slog.Warn("a simulated concentrator has no link, it keeps trying", "concentrator", c.number, "gateway", c.town.config.Gateway, "err", err)
		})
		if c.pause(ctx, attempt) {
			attempt = -1
		}
	}
}

// pause waits before the next dial, longer each time, at a random length so that a town does not return in step.
// It returns true if the plug was put in meanwhile.
func (c *concentrator) pause(ctx context.Context, attempt int) bool {
	longest := min(firstBackoff<<min(attempt, 16), longestBackoff)
	timer := time.NewTimer(longest/2 + rand.N(longest/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-c.wake:
		return true
	}
	return false
}

// connect dials and serves one connection. served says that a request came over it, so that the gateway is known
// to want this concentrator.
func (c *concentrator) connect(ctx context.Context) (served bool, err error) {
	conn, err := c.login(ctx)
	if err != nil {
		return false, err
	}
	defer c.hangUp()
	l := newLink(c, conn)
	err = l.serve(ctx)
	return l.served, err
}

// login dials, takes the connection and names itself. However the link ends, hangUp frees it.
func (c *concentrator) login(ctx context.Context) (net.Conn, error) {
	select {
	case c.town.dialing <- struct{}{}:
		defer func() { <-c.town.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", c.town.config.Gateway)
	if err != nil {
		return nil, err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("bound the login: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "LOGIN:%d", c.number); err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	if !c.adopt(ctx, conn) {
		conn.Close()
		return nil, net.ErrClosed
	}
	return conn, nil
}

// adopt makes conn the link, unless the plug or the town was pulled while it was dialed.
func (c *concentrator) adopt(ctx context.Context, conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unplugged || ctx.Err() != nil {
		return false
	}
	c.conn, c.since = conn, time.Now()
	if !c.connected {
		c.connected = true
		c.town.connectedFirst(c.number)
	}
	return true
}

// hangUp closes the link if there is one.
func (c *concentrator) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUpLocked()
}

func (c *concentrator) hangUpLocked() {
	if c.conn == nil {
		return
	}
	c.conn.Close()
	c.conn, c.since = nil, time.Now()
}

func (c *concentrator) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unplugged, c.since = true, time.Now()
	c.hangUpLocked()
}

func (c *concentrator) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unplugged {
		return
	}
	c.unplugged, c.since = false, time.Now()
	select {
	case c.wake <- struct{}{}:
	default: // it is to wake up already
	}
}

func (c *concentrator) isUnplugged() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unplugged
}

func (c *concentrator) count(meterNumber int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames == nil {
		c.frames = make(map[int]int, 1)
	}
	c.frames[meterNumber]++
}

func (c *concentrator) framesOf(meterNumber int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames[meterNumber]
}

// condition is a concentrator as GET /concentrators shows it.
type condition struct {
	Concentrator meter.ConcentratorID  `json:"concentrator"`
	Link         meter.LinkState       `json:"link"`
	Plugged      bool                  `json:"plugged"`
	Since        time.Time             `json:"since,omitzero"`
	Frames       map[meter.Address]int `json:"frames"` // requests by meter, of those that were asked
}

func (c *concentrator) condition() condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := condition{
		Concentrator: place{c.number, 1}.concentratorID(),
		Link:         meter.LinkDown,
		Plugged:      !c.unplugged,
		Since:        c.since,
		Frames:       make(map[meter.Address]int, len(c.frames)),
	}
	if c.conn != nil {
		now.Link = meter.LinkUp
	}
	for m, n := range c.frames {
		now.Frames[place{c.number, m}.address()] = n
	}
	return now
}
