package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/gateway/scheduler"
)

// link is one TCP connection to a concentrator, or to an application server that holds several, and the schedule
// of the bus behind it. An idle link is one goroutine that reads; whoever finds a frame to send, sends it.
type link struct {
	gateway *Gateway
	driver  driver.Driver
	traits  driver.Traits
	conn    net.Conn
	since   time.Time
	frames  *frameLog

	mu       sync.Mutex
	protocol driver.Link
	bus      *scheduler.Bus
	names    []meter.ConcentratorID // whose link this is; empty until the registration came
	sending  bool                   // somebody writes a frame outside of mu
	timer    *time.Timer            // calls pump when the bus next has something to do
	landed   chan struct{}          // closed once nothing is on the wire; nil unless somebody waits for that
	reason   string                 // why it was closed; "" while it is open
	broke    bool                   // the connection broke: the concentrator is likely to dial in again at once
	counted  scheduler.Counts       // what of the bus's counts is in the driver's totals
}

const (
	readBytes           = 128 // a packet with one frame; every link has such a buffer
	writeTimeout        = 5 * time.Second
	registrationTimeout = time.Minute
	maxUnregistered     = 4096 // bytes that may come before a registration
)

// newLink makes the link of conn. names are the concentrators behind a connection that we opened.
func newLink(g *Gateway, d driver.Driver, conn net.Conn, names []meter.ConcentratorID) *link {
	l := &link{
		gateway: g, driver: d, traits: d.Traits(), conn: conn, names: names,
		since:    time.Now(),
		frames:   &frameLog{driver: d},
		protocol: d.NewLink(names != nil),
	}
	l.bus = scheduler.New(scheduler.Config{
		Gap: cmp.Or(l.traits.Gap, g.config.BusGap), ResponseTimeout: l.traits.ResponseTimeout, Queue: g.config.BusQueue,
		Window: l.traits.Window, Retries: l.traits.Retries, Request: l.protocol.Request,
	})
	return l
}

// run reads until the connection ends, then cleans up.
func (l *link) run() {
	defer l.gateway.wait.Done()
	for _, c := range l.names {
		l.retime(c)
		l.gateway.hold(l, c)
	}
	l.ended(l.read())
	l.gateway.release(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bus.Close(time.Now(), meter.Errorf(meter.CodeLinkLost, "the link of the concentrator went down: %s; ask again, it usually comes back", l.reason))
	l.count()
	if l.timer != nil {
		l.timer.Stop()
	}
	level := slog.LevelInfo
	if len(l.names) == 0 {
		level = slog.LevelDebug // a port scan, a health check
	}
	l.log().Log(context.Background(), level, "link down", "concentrators", l.names, "reason", l.reason)
}

// retime gives the bus the timing that the operator set for this concentrator, if any.
func (l *link) retime(c meter.ConcentratorID) {
	for _, t := range l.gateway.config.Timings {
		if t.Concentrator == c {
			l.mu.Lock()
			l.bus.Retime(t.Gap, t.ResponseTimeout)
			l.mu.Unlock()
		}
	}
}

func explainEnd(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "the concentrator closed the connection"
	case errors.Is(err, errNoRegistration):
		return err.Error()
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset"
	case errors.Is(err, syscall.ETIMEDOUT):
		return "the concentrator does not answer any more (TCP keep-alive)"
	default:
		return err.Error()
	}
}

var errNoRegistration = fmt.Errorf("no registration came within %s and %d bytes", registrationTimeout, maxUnregistered)

// read feeds what arrives to the protocol. Bytes that stand incomplete are looked at again after a silence.
func (l *link) read() error {
	var pending []byte
	unregistered := 0
	buffer := make([]byte, readBytes)
	for {
		if err := l.conn.SetReadDeadline(l.readDeadline(len(pending) > 0)); err != nil {
			return err
		}
		n, err := l.conn.Read(buffer)
		quiet := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !quiet {
			return err
		}
		if !l.registered() {
			// Whoever floods or drips without a name does not keep a place.
			if unregistered += n; unregistered > maxUnregistered || time.Since(l.since) >= registrationTimeout {
				return errNoRegistration
			}
		}
		if len(pending) == 0 {
			// Nearly always a packet is whole; an idle link keeps no second buffer.
			pending = slices.Clone(l.consume(buffer[:n], quiet))
			continue
		}
		pending = l.consume(append(pending, buffer[:n]...), quiet)
	}
}

func (l *link) readDeadline(incomplete bool) time.Time {
	switch {
	case incomplete && l.traits.Quiet > 0:
		return time.Now().Add(l.traits.Quiet)
	case !l.registered():
		return l.since.Add(registrationTimeout)
	default:
		return time.Time{}
	}
}

// log is made when it is needed: ten thousand idle links should not each keep one.
func (l *link) log() *slog.Logger {
	return l.gateway.log.With("protocol", l.driver.Name(), "remote", l.conn.RemoteAddr().String())
}

func (l *link) registered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.names) > 0
}

// consume takes events off the front of b and returns the rest.
func (l *link) consume(b []byte, quiet bool) []byte {
	for len(b) > 0 {
		l.mu.Lock()
		event, n := l.protocol.Next(b, quiet || len(b) >= l.traits.MaxFrame)
		l.mu.Unlock()
		if n == 0 {
			return b
		}
		l.take(event)
		b = b[n:]
	}
	return nil
}

func (l *link) take(e driver.Event) {
	switch e.Kind {
	case driver.Registration:
		l.frames.add(meter.Up, meter.FrameRegistration, e.Raw)
	case driver.Heartbeat:
		l.frames.add(meter.Up, meter.FrameHeartbeat, e.Raw)
	case driver.Noise:
		l.frames.add(meter.Up, meter.FrameNoise, e.Raw)
	case driver.Frame: // receive knows its kind
	}
	if len(e.Reply) > 0 {
		l.frames.add(meter.Down, meter.FrameReply, e.Reply)
		if !l.write(e.Reply) {
			return
		}
	}
	switch e.Kind {
	case driver.Registration:
		l.register(e.Concentrator)
	case driver.Frame:
		l.receive(e.Raw)
	case driver.Noise:
		l.mu.Lock()
		l.bus.Stray(e.Raw)
		l.mu.Unlock()
		l.log().Debug("bytes that are no frame", "bytes", meter.Hex(e.Raw))
	case driver.Heartbeat:
	}
}

// register names the link. Some DTUs repeat their registration before every packet; another name means that
// another device has come in on this connection, whose commands and answers must not be mixed with the first's.
func (l *link) register(c meter.ConcentratorID) {
	l.mu.Lock()
	known := len(l.names) > 0
	same := known && l.names[0] == c
	if !known {
		l.names = []meter.ConcentratorID{c}
	}
	l.mu.Unlock()
	switch {
	case same:
	case known:
		l.close("it registered again as " + c.String())
	default:
		l.log().Info("link up", "concentrator", c)
		l.retime(c)
		l.gateway.hold(l, c)
	}
}

func (l *link) receive(frame []byte) {
	l.mu.Lock()
	receipt, reading := l.bus.Receive(time.Now(), frame)
	l.mu.Unlock()
	switch receipt {
	case scheduler.Late:
		l.frames.add(meter.Up, meter.FrameLate, frame)
		l.log().Debug("a late answer was dropped", "concentrators", l.names, "frame", meter.Hex(frame))
	case scheduler.Foreign:
		l.frames.add(meter.Up, meter.FrameForeign, frame)
		l.log().Debug("a frame that answers nothing", "concentrators", l.names, "frame", meter.Hex(frame))
	case scheduler.Answered:
		l.frames.add(meter.Up, meter.FrameAnswer, frame)
	}
	if reading != nil {
		l.countReading(reading)
		reading.Gateway = l.gateway.id
		l.gateway.readings.add(reading)
	}
	l.pump()
}

// submit gives the bus a command; false if the link is closed. It does not block.
func (l *link) submit(c *command) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason != "" {
		return false
	}
	now := time.Now()
	l.bus.Submit(now, &c.Command)
	if !l.sending && l.bus.Ready(now) {
		go l.pump()
	} else {
		l.arm(now)
	}
	return true
}

func (l *link) cancel(c *command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.bus.Cancel(now, &c.Command)
	l.arm(now)
}

// pump ends what time has ended, and sends what is to be sent.
func (l *link) pump() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.reason == "" {
		now := time.Now()
		l.bus.Advance(now)
		if l.sending {
			break // who sends will come by here again
		}
		frame, ok := l.bus.Start(now)
		if !ok {
			break
		}
		l.sending = true
		l.mu.Unlock()
		l.frames.add(meter.Down, meter.FrameRequest, frame)
		ok = l.write(frame)
		l.mu.Lock()
		l.sending = false
		if !ok {
			return
		}
	}
	l.arm(time.Now())
}

// arm sets the timer to when the bus next has something to do. mu is held.
func (l *link) arm(now time.Time) {
	l.tellLanded()
	at, ok := l.bus.Wake()
	switch {
	case l.sending: // who sends comes by pump again
	case !ok || l.reason != "":
		if l.timer != nil {
			l.timer.Stop()
		}
	case l.timer == nil:
		l.timer = time.AfterFunc(at.Sub(now), l.pump)
	default:
		l.timer.Reset(at.Sub(now))
	}
}

// write sends b, or closes the link: after half a frame nothing sensible can follow.
func (l *link) write(b []byte) bool {
	err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = l.conn.Write(b)
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.close("it takes no more bytes")
	default:
		l.ended(err)
	}
	return false
}

// ended notes that the connection ended with err. Only one that broke is likely to be dialled again at once, not one on
// which the far end fell silent or that we closed.
func (l *link) ended(err error) {
	l.end(explainEnd(err), errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

// close ends the connection; run cleans up.
func (l *link) close(reason string) { l.end(reason, false) }

// end keeps the first reason.
func (l *link) end(reason string, broke bool) {
	l.mu.Lock()
	if l.reason == "" {
		l.reason, l.broke = reason, broke
	}
	l.mu.Unlock()
	l.conn.Close()
}
