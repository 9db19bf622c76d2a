package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/driver/drivers"
	"github.com/dianchao/dianchao/pkg/meter"
)

// patience is how long a test waits for what must happen soon.
const patience = 20 * time.Second

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func embed(t *testing.T) string {
	t.Helper()
	s, err := bus.Embed("127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.URL()
}

// config is a gateway on free ports whose registrations and timeouts do not keep a test waiting.
func config(url, id string) Config {
	c := Config{
		NATS: url, ID: id, Listen: []Listen{{"cjt188", "127.0.0.1:0"}},
		BusGap: time.Millisecond, BusQueue: 100, MaxLinks: 1000, Drain: 5 * time.Second, Drivers: drivers.New(),
	}
	c.Drivers.CJT188.Quiet = 20 * time.Millisecond
	c.Drivers.CJT188.ResponseTimeout = time.Second
	return c
}

// run starts a gateway, and returns what stops it.
func run(t *testing.T, c Config) (g *Gateway, stop func()) {
	t.Helper()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended with: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-g.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("the gateway did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("the gateway did not become ready")
	}
	return g, stop
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := bus.Connect(t.Context(), bus.Options{URL: url, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// dtu is a concentrator whose every answer the test gives by hand.
type dtu struct {
	t        *testing.T
	conn     net.Conn
	requests chan cjt188.Frame
}

func dialIn(t *testing.T, g *Gateway, number string) *dtu {
	t.Helper()
	conn, err := net.Dial("tcp", g.Address("cjt188"))
	if err != nil {
		t.Fatal(err)
	}
	d := &dtu{t: t, conn: conn, requests: make(chan cjt188.Frame, 100)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(d.requests)
		frame := make([]byte, 18) // two FE and a request of 16 bytes
		for {
			if _, err := io.ReadFull(conn, frame); err != nil {
				return
			}
			f, err := cjt188.Parse(slices.Clone(frame))
			if err != nil {
				t.Errorf("the gateway sent %X: %v", frame, err)
				return
			}
			d.requests <- f
		}
	}()
	t.Cleanup(func() { conn.Close(); <-read })
	d.send([]byte("LOGIN:" + number))
	return d
}

func (d *dtu) send(b []byte) {
	d.t.Helper()
	if _, err := d.conn.Write(b); err != nil {
		d.t.Fatalf("the DTU cannot write: %v", err)
	}
}

// asked waits for the next request; false if the connection ended.
func (d *dtu) asked() (cjt188.Frame, bool) {
	d.t.Helper()
	select {
	case f, ok := <-d.requests:
		return f, ok
	case <-time.After(patience):
		d.t.Fatal("nothing was asked")
		return cjt188.Frame{}, false
	}
}

// answers sends the meter's answer to f.
func (d *dtu) answers(f cjt188.Frame, volume string) {
	d.t.Helper()
	v := must(meter.ParseDecimal(volume))
	d.send(must(f.Answer(meter.Reading{Volume: &v})).Append(nil))
}

// asking is a command on its way; its answers come in order.
type asking struct {
	t   *testing.T
	sub *nats.Subscription
}

func ask(t *testing.T, nc *nats.Conn, concentrator, body string) *asking {
	t.Helper()
	return askWith(t, nc, &nats.Msg{Subject: "meter.read." + concentrator, Data: []byte(body)})
}

func askWith(t *testing.T, nc *nats.Conn, m *nats.Msg) *asking {
	t.Helper()
	m.Reply = nats.NewInbox()
	sub := must(nc.SubscribeSync(m.Reply))
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	return &asking{t, sub}
}

// next returns the next stage; nobody there is CodeConcentratorOffline.
func (a *asking) next() meter.Answer {
	a.t.Helper()
	m, err := a.sub.NextMsg(patience)
	if errors.Is(err, nats.ErrNoResponders) {
		return meter.Answer{Stage: meter.StageFailed, Error: meter.Errorf(meter.CodeConcentratorOffline, "no responders")}
	}
	if err != nil {
		a.t.Fatalf("no answer: %v", err)
	}
	var answer meter.Answer
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		a.t.Fatalf("%s: %v", m.Data, err)
	}
	return answer
}

func (a *asking) fails(code meter.Code) meter.Answer {
	a.t.Helper()
	got := a.next()
	for !got.Stage.Terminal() {
		got = a.next()
	}
	if got.Error == nil || got.Error.Code != code {
		a.t.Fatalf("want %s, got %s %+v", code, got.Stage, got.Error)
	}
	return got
}

func (a *asking) reads(volume string) meter.Answer {
	a.t.Helper()
	got := a.next()
	for !got.Stage.Terminal() {
		got = a.next()
	}
	if got.Reading == nil || got.Reading.Volume.String() != volume {
		a.t.Fatalf("want %s m³, got %s %+v %+v", volume, got.Stage, got.Reading, got.Error)
	}
	return got
}

// up waits until commands for a concentrator arrive.
func up(t *testing.T, nc *nats.Conn, concentrator string) {
	t.Helper()
	eventually(t, concentrator+" is online", func() bool {
		m, err := nc.Request("meter.read."+concentrator, []byte(`{}`), time.Second)
		return err == nil && strings.Contains(string(m.Data), "bad_command")
	})
}
