package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
)

// downward tells frames apart in what the gateway sends: no registration and no heartbeats go that way.
var downward = func() *cjt188.Driver {
	d := cjt188.New()
	d.Heartbeats = nil
	return &d
}()

const (
	heartbeat    = "LOG"
	writeTimeout = 10 * time.Second // a gateway that reads nothing for so long is gone
	quiet        = 500 * time.Millisecond
	maxWaiting   = 64 // answers that wait for their moment on one link
)

// Why a link ended.
var (
	errClosed      = errors.New("the gateway closed the connection")
	errFaultHangUp = errors.New("the link was broken off, as the fault rates ask")
)

// answer is bytes that wait for their moment.
type answer struct {
	due    time.Time
	bytes  []byte
	split  bool // one byte at a time
	hangUp bool // then the link goes down
}

// link is one connection of a concentrator. One goroutine reads, waits and writes, so that ten thousand of them
// are cheap: whatever is to happen later is a read deadline.
type link struct {
	*concentrator
	conn        net.Conn
	protocol    driver.Link
	in          [256]byte // more than a request with its preamble can have
	have        int       // bytes of in that are not used yet
	out         []answer
	quietAt     time.Time // when what stands incomplete will not be completed any more; zero if nothing does
	heartbeatAt time.Time // zero for never, as the next
	unaskedAt   time.Time
	unasked     int
	served      bool
}

func newLink(c *concentrator, conn net.Conn) *link {
	now := time.Now()
	l := &link{concentrator: c, conn: conn, protocol: downward.NewLink(true)}
	// The first ones at random, so that a town that connects at once does not beat in step.
	if every := c.town.config.Heartbeat; every > 0 {
		l.heartbeatAt = now.Add(rand.N(every))
	}
	if every := c.town.config.Faults.Unasked; every > 0 {
		l.unaskedAt = now.Add(rand.N(every))
	}
	return l
}

// serve answers until the connection ends or breaks, and says why.
func (l *link) serve(ctx context.Context) error {
	for {
		if err := l.sendDue(ctx); err != nil {
			return err
		}
		if err := l.conn.SetReadDeadline(l.wakeAt()); err != nil {
			return err
		}
		n, err := l.conn.Read(l.in[l.have:])
		l.have += n
		now := time.Now()
		if n > 0 {
			l.quietAt = now.Add(quiet)
		}
		l.take(now)
		if errors.Is(err, io.EOF) {
			return errClosed
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// wakeAt is when something is to be done although nothing was received; zero for never.
func (l *link) wakeAt() time.Time {
	earliest := l.quietAt
	consider := func(t time.Time) {
		if !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	consider(l.heartbeatAt)
	consider(l.unaskedAt)
	if len(l.out) > 0 {
		consider(l.out[0].due)
	}
	return earliest
}

// take uses up the whole requests among the bytes received.
func (l *link) take(now time.Time) {
	used := 0
	for used < l.have {
		ended := l.have-used == len(l.in) || !now.Before(l.quietAt)
		event, n := l.protocol.Next(l.in[used:l.have], ended)
		if n == 0 {
			break
		}
		used += n
		if event.Kind == driver.Frame {
			l.answer(event.Raw, now)
		}
	}
	l.have = copy(l.in[:], l.in[used:l.have])
	if l.have == 0 {
		l.quietAt = time.Time{}
	}
}

// answer puts what the bus says to a frame in line, misfortunes included.
func (l *link) answer(frame []byte, now time.Time) {
	request, err := cjt188.Parse(frame)
	if err != nil || request.Control&cjt188.Reply != 0 {
		return // no meter answers a meter
	}
	l.served = true
	l.town.requests.Add(1)
	p, ok := l.town.config.Town.asked(l.number, request)
	if !ok {
		return // nobody on this bus has that address
	}
	l.count(p.meter)
	faults := l.town.config.Faults
	m := faults.draw(l.draws)
	if m.drop {
		return
	}
	if m.wrong {
		p = p.neighbour(l.town.config.Town)
	}
	a := answer{due: now.Add(l.town.config.Delay), split: m.split, hangUp: m.hangUp}
	if m.late {
		a.due = a.due.Add(faults.LateBy)
	}
	a.bytes = m.distort(p.reply(request, now), len(wakeUp))
	l.put(a)
}

// put keeps the line in the order of its moments, and of arrival among equals.
func (l *link) put(a answer) {
	if len(l.out) >= maxWaiting {
		slog.Debug("a simulated bus has too many answers waiting, one is lost", "concentrator", l.number)
		return
	}
	at := len(l.out)
	for at > 0 && l.out[at-1].due.After(a.due) {
		at--
	}
	l.out = slices.Insert(l.out, at, a)
}

// sendDue writes everything whose moment has come.
func (l *link) sendDue(ctx context.Context) error {
	now := time.Now()
	for len(l.out) > 0 && !l.out[0].due.After(now) {
		a := l.out[0]
		l.out = slices.Delete(l.out, 0, 1)
		if err := l.send(ctx, a); err != nil {
			return err
		}
	}
	if len(l.out) == 0 {
		l.out = nil // ten thousand idle links hold no line
	}
	if !l.heartbeatAt.IsZero() && !l.heartbeatAt.After(now) {
		l.heartbeatAt = now.Add(l.town.config.Heartbeat)
		if err := l.write([]byte(heartbeat)); err != nil {
			return err
		}
	}
	if !l.unaskedAt.IsZero() && !l.unaskedAt.After(now) {
		l.unaskedAt = now.Add(l.town.config.Faults.Unasked)
		l.unasked++
		p := place{l.number, 1 + l.unasked%l.town.config.Town.Meters}
		return l.write(p.report(byte(l.unasked), now))
	}
	return nil
}

func (l *link) send(ctx context.Context, a answer) error {
	if !a.split {
		if err := l.write(a.bytes); err != nil {
			return err
		}
	} else if err := l.sendSplit(ctx, a.bytes); err != nil {
		return err
	}
	if a.hangUp {
		return errFaultHangUp
	}
	return nil
}

func (l *link) sendSplit(ctx context.Context, b []byte) error {
	for i := range b {
		if err := l.write(b[i : i+1]); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.town.config.Faults.SplitPause):
		}
	}
	return nil
}

func (l *link) write(b []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("send to the gateway: %w", err)
	}
	return nil
}
