package faults

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/services/edge"
	"github.com/dianchao/dianchao/services/gateway"
	"github.com/dianchao/dianchao/services/simulator"
)

// patience is how long a test waits for what must happen soon.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // a row mostly waits
		panic(err)
	}
	// Links that go down are the normal case here.
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	os.Exit(m.Run())
}

// timing is what a gateway expects of its wires.
type timing struct{ response, quiet time.Duration }

var (
	// brisk lets a silent meter cost little.
	brisk = timing{600 * time.Millisecond, 100 * time.Millisecond}
	// tolerant is for bytes that come slowly.
	tolerant = timing{10 * time.Second, 500 * time.Millisecond}
)

// world is one edge and one gateway over a NATS of their own.
type world struct {
	t       *testing.T
	gateway *gateway.Gateway
	edge    *edge.Edge
}

func newWorld(t *testing.T, wires timing) *world {
	t.Helper()
	server, err := bus.Embed("127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)

	var g gateway.Config
	if err := kong.ApplyDefaults(&g); err != nil {
		t.Fatal(err)
	}
	g.NATS, g.Listen = server.URL(), []gateway.Listen{{Protocol: "cjt188", Address: "127.0.0.1:0"}}
	g.Drivers.CJT188.ResponseTimeout, g.Drivers.CJT188.Quiet = wires.response, wires.quiet
	e, err := edge.Defaults()
	if err != nil {
		t.Fatal(err)
	}
	e.NATS, e.HTTP = server.URL(), "127.0.0.1:0"

	w := &world{t: t}
	if w.gateway, err = gateway.New(g); err != nil {
		t.Fatal(err)
	}
	if w.edge, err = edge.New(e); err != nil {
		t.Fatal(err)
	}
	run(t, w.gateway)
	run(t, w.edge)
	reached(t, "gateway and edge are ready", w.gateway.Ready(), w.edge.Ready())
	return w
}

// address is where concentrators dial in.
func (w *world) address() string { return w.gateway.Address("cjt188") }

// town plugs in simulated concentrators, but for those that are named.
func (w *world) town(c simulator.Config, absent ...string) *simulator.Simulator {
	w.t.Helper()
	s, err := simulator.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range absent {
		if err := s.Unplug(concentrator(a)); err != nil {
			w.t.Fatal(err)
		}
	}
	run(w.t, s)
	return s
}

// proxy is a door to the gateway's listener that toxics can be put into.
func (w *world) proxy() *toxiproxy.Proxy {
	w.t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard))
	p := toxiproxy.NewProxy(server, "link", "127.0.0.1:0", w.address())
	if err := p.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Stop)
	return p
}

// poison puts a toxic into every link of p, those that stand and those to come. Its stream is "upstream" for what
// the concentrator sends, "downstream" for what it is sent.
func poison(t *testing.T, p *toxiproxy.Proxy, toxics ...string) {
	t.Helper()
	for _, toxic := range toxics {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Errorf("toxic %s: %v", toxic, err)
		}
	}
}

// service is what gateway, edge and simulator are to a test.
type service interface{ Run(context.Context) error }

// run runs s until the test ends.
func run(t *testing.T, s service) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%T ended with: %v", s, err)
			}
		case <-time.After(patience):
			t.Errorf("%T did not end", s)
		}
	})
}

func reached(t *testing.T, what string, all ...<-chan struct{}) {
	t.Helper()
	late := time.After(patience)
	for _, one := range all {
		select {
		case <-one:
		case <-late:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// eventually waits until ok, polling.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
