package simulator

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var gatewayDriver = cjt188.New()

const patience = 20 * time.Second

// testGateway is the gateway's end of the links: it accepts them and knows the protocol, and nothing else, so
// that a test sees every byte.
type testGateway struct {
	t        testing.TB
	listener net.Listener
	logins   chan *testLink
	serving  sync.WaitGroup
}

func newTestGateway(t testing.TB) *testGateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &testGateway{t: t, listener: listener, logins: make(chan *testLink, 2048)}
	g.serving.Go(g.accept)
	t.Cleanup(func() {
		listener.Close()
		g.serving.Wait()
		for {
			select {
			case l := <-g.logins:
				l.conn.Close()
			default:
				return
			}
		}
	})
	return g
}

func (g *testGateway) address() string { return g.listener.Addr().String() }

func (g *testGateway) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		l := &testLink{t: g.t, conn: conn, protocol: gatewayDriver.NewLink(false)}
		g.serving.Go(func() {
			if !l.login() {
				conn.Close()
				return
			}
			g.logins <- l
		})
	}
}

// login waits for the next concentrator that names itself.
func (g *testGateway) login() *testLink {
	g.t.Helper()
	select {
	case l := <-g.logins:
		g.t.Cleanup(func() { l.conn.Close() })
		return l
	case <-time.After(patience):
		g.t.Fatal("no concentrator logged in")
		return nil
	}
}

// testLink is one concentrator's connection.
type testLink struct {
	t            testing.TB
	conn         net.Conn
	protocol     driver.Link
	pending      []byte
	concentrator meter.ConcentratorID
}

func (l *testLink) login() bool {
	e, err := l.next(time.Now().Add(patience))
	l.concentrator = e.Concentrator
	return err == nil && e.Kind == driver.Registration
}

// next is the next thing that stood in the bytes. The error is os.ErrDeadlineExceeded if nothing more came.
func (l *testLink) next(deadline time.Time) (driver.Event, error) {
	silence := gatewayDriver.Traits().Quiet
	ended := false
	for {
		if len(l.pending) > 0 {
			if e, n := l.protocol.Next(l.pending, ended); n > 0 {
				l.pending = l.pending[n:]
				return e, nil
			}
		}
		wait := deadline
		if soon := time.Now().Add(silence); len(l.pending) > 0 && silence > 0 && soon.Before(deadline) {
			wait = soon
		}
		if err := l.conn.SetReadDeadline(wait); err != nil {
			return driver.Event{}, err
		}
		buffer := make([]byte, 512)
		n, err := l.conn.Read(buffer)
		l.pending = append(l.pending, buffer[:n]...)
		ended = errors.Is(err, os.ErrDeadlineExceeded) && len(l.pending) > 0 && wait != deadline
		if err != nil && !ended {
			return driver.Event{}, err
		}
	}
}

// frame skips noise and heartbeats.
func (l *testLink) frame(within time.Duration) ([]byte, error) {
	deadline := time.Now().Add(within)
	for {
		e, err := l.next(deadline)
		if err != nil || e.Kind == driver.Frame {
			return e.Raw, err
		}
	}
}

func (l *testLink) send(frame []byte) {
	l.t.Helper()
	if _, err := l.conn.Write(frame); err != nil {
		l.t.Fatalf("send to concentrator %s: %v", l.concentrator, err)
	}
}

func (l *testLink) request(m string) driver.Exchange {
	l.t.Helper()
	a, err := gatewayDriver.Canonical(address(l.t, m))
	if err != nil {
		l.t.Fatal(err)
	}
	return l.protocol.Request(l.concentrator, a)
}

// verdict is what the next frame is to an exchange; the test fails if none comes.
func (l *testLink) verdict(x driver.Exchange) driver.Verdict {
	l.t.Helper()
	frame, err := l.frame(patience)
	if err != nil {
		l.t.Fatalf("no frame from concentrator %s: %v", l.concentrator, err)
	}
	return x.Judge(frame)
}

// read is one whole exchange that must succeed.
func (l *testLink) read(m string) *meter.Reading {
	l.t.Helper()
	x := l.request(m)
	l.send(x.Frame())
	v := l.verdict(x)
	if v.Reading == nil {
		l.t.Fatalf("meter %s behind %s gave no reading: %+v", m, l.concentrator, v)
	}
	return v.Reading
}

// silent fails the test if anything but heartbeats and noise comes meanwhile.
func (l *testLink) silent(during time.Duration) {
	l.t.Helper()
	frame, err := l.frame(during)
	if err == nil {
		l.t.Fatalf("concentrator %s should be silent, it sent %s", l.concentrator, meter.Hex(frame))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Fatalf("concentrator %s: %v", l.concentrator, err)
	}
}

// ended waits for the end of the connection.
func (l *testLink) ended() {
	l.t.Helper()
	for {
		_, err := l.next(time.Now().Add(patience))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.t.Fatalf("the link of concentrator %s did not end", l.concentrator)
		}
		if err != nil {
			return // io.EOF, or a reset if a request was under way
		}
	}
}

// start runs a town until the test ends.
func start(t testing.TB, config Config) *Simulator {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	})
	return s
}

func waitReady(t testing.TB, s *Simulator) {
	t.Helper()
	select {
	case <-s.Ready():
	case <-time.After(patience):
		t.Fatal("the town was not ready in time")
	}
}
