package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/dianchao/dianchao/pkg/driver"
)

type listener struct {
	net.Listener
	driver driver.Driver
}

// listen opens every listener, or none.
func (g *Gateway) listen() ([]listener, error) {
	var all []listener
	for _, l := range g.config.Listen {
		ln, err := net.Listen("tcp", l.Address)
		if err != nil {
			for _, open := range all {
				open.Close()
			}
			return nil, fmt.Errorf("concentrators (%s) cannot be listened for on %s, choose another address with --listen: %w", l.Protocol, l.Address, err)
		}
		all = append(all, listener{ln, g.driver(l.Protocol)})
		g.mu.Lock()
		g.addresses[l.Protocol] = ln.Addr().String()
		g.mu.Unlock()
	}
	return all, nil
}

// keepAlive finds out that the far end is gone without a word: after 30 s of silence three probes, 10 s apart.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// acceptPause is waited after a failed Accept, which means that we are out of file descriptors or memory.
const acceptPause = 100 * time.Millisecond

func (g *Gateway) accept(ctx context.Context, l listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			g.log.Error("cannot accept concentrators; is the limit of open files too low?", "address", l.Addr(), "err", err)
			if !pause(ctx, acceptPause) {
				return nil
			}
			continue
		}
		if g.isolated.Load() {
			conn.Close()
			continue
		}
		_ = conn.(*net.TCPConn).SetKeepAliveConfig(keepAlive) // refused only by a connection that is gone: reading will tell
		if g.balances(conn.RemoteAddr().(*net.TCPAddr)) {
			conn = newProxied(conn)
		}
		if link := newLink(g, l.driver, conn, nil); g.add(link) {
			go link.run()
		}
	}
}

// balances says whether connections from this address begin with a PROXY header.
func (g *Gateway) balances(from *net.TCPAddr) bool {
	address := from.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(g.config.Proxies, func(n Network) bool { return netip.Prefix(n).Contains(address) })
}

// proxied is a connection from a balancer. Its header is read by the first Read, so by the link and under the link's
// deadline: accept waits for nobody. Not proxyproto.Conn, whose RemoteAddr and Write wait for the header too, which refuses
// a version 1 that TCP has split, and which keeps the whole header.
type proxied struct {
	net.Conn
	remote net.Addr      // the balancer's until the header was read
	ahead  *bufio.Reader // the header and what came with it; nil once taken
	header bool          // was read
}

const (
	aheadBytes = 256 // a header, without what balancers may add to it, and a registration
	maxLineV1  = 107 // bytes
)

func newProxied(conn net.Conn) *proxied {
	return &proxied{Conn: conn, remote: conn.RemoteAddr(), ahead: bufio.NewReaderSize(conn, aheadBytes)}
}

func (p *proxied) RemoteAddr() net.Addr { return p.remote }

func (p *proxied) Read(b []byte) (int, error) {
	if !p.header {
		if err := p.readHeader(); err != nil {
			return 0, fmt.Errorf("read the balancer's PROXY header: %w", err)
		}
		p.header = true
	}
	if p.ahead != nil && p.ahead.Buffered() == 0 {
		p.ahead = nil
	}
	if p.ahead == nil {
		return p.Conn.Read(b)
	}
	return p.ahead.Read(b)
}

func (p *proxied) readHeader() error {
	for n := 1; n <= maxLineV1; n++ { // the library wants all of a line of version 1 at hand
		b, err := p.ahead.Peek(n)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(b, proxyproto.SIGV1[:min(n, len(proxyproto.SIGV1))]) || b[n-1] == '\n' {
			break
		}
	}
	h, err := proxyproto.Read(p.ahead)
	if err != nil {
		return err
	}
	if from, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() { // else the balancer speaks for itself: a health check
		p.remote = from
	}
	return nil
}

// add takes a link in, or closes it if there are too many. Its run must follow.
func (g *Gateway) add(l *link) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.links) >= g.config.MaxLinks {
		g.log.Error("too many links, this one is closed", "remote", l.conn.RemoteAddr(), "max", g.config.MaxLinks)
		l.conn.Close()
		return false
	}
	g.links[l] = struct{}{}
	g.wait.Add(1)
	return true
}

func (g *Gateway) closeLinks(reason string) {
	g.mu.Lock()
	all := make([]*link, 0, len(g.links))
	for l := range g.links {
		all = append(all, l)
	}
	g.mu.Unlock()
	for _, l := range all {
		l.close(reason)
	}
}

const (
	dialTimeout  = 10 * time.Second
	redialAtOnce = 200 * time.Millisecond
	redialMost   = 30 * time.Second
	standbyPause = time.Second
	// steady is how long a link must have lasted to count as good, so that the next dial comes at once again.
	steady = 10 * time.Second
)

// dial keeps one connection to d, reconnecting with a backoff that doubles and is jittered, until ctx ends.
func (g *Gateway) dial(ctx context.Context, d Dial) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive}
	backoff := redialAtOnce
	select {
	case <-g.claims.known: // who holds the far end already
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		if g.heldElsewhere(d.Concentrators) {
			// Another gateway has the same far end; this one stands by.
			if !pause(ctx, standbyPause) {
				return
			}
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", d.Address)
		if err != nil {
			if ctx.Err() == nil {
				g.log.Warn("cannot reach the concentrators' far end, trying again", "protocol", d.Protocol, "address", d.Address, "in", backoff, "err", err)
			}
		} else if link := newLink(g, g.driver(d.Protocol), conn, d.Concentrators); g.add(link) {
			began := time.Now()
			link.run()
			if time.Since(began) > steady {
				backoff = redialAtOnce
			}
		}
		if !pause(ctx, backoff/2+rand.N(backoff/2)) {
			return
		}
		backoff = min(2*backoff, redialMost)
	}
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
