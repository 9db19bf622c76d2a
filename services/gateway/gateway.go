// Package gateway holds the links of concentrators and reads meters over them (前置机).
//
// Concentrators dial in to a listener, or are dialled; commands come over NATS on the subject of the
// concentrator they are for, and go to the schedule of its bus. docs/nats.md is the contract.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/drivers"
	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// Config is what an operator sets of a gateway.
type Config struct {
	NATS     string          `kong:"-"`
	Storage  bus.Storage     `kong:"-"`
	ID       string          `name:"gateway-id" help:"This gateway's id, in answers and in the bucket links. Default: gw- and eight random hexadecimal digits."`
	Listen   []Listen        `default:"cjt188=127.0.0.1:7188" placeholder:"PROTOCOL=HOST:PORT" sep:"none" help:"Let concentrators of a protocol dial in here; repeatable."`
	Proxies  []Network       `name:"proxy-protocol" placeholder:"NETWORK" help:"Networks (or addresses) of balancers whose connections begin with a PROXY header (v1 or v2) that names the concentrator's address, e.g. 10.0.0.0/24,192.0.2.7. Without a header they are closed; other connections are taken as they are."`
	Dial     []Dial          `placeholder:"PROTOCOL=HOST:PORT@NUMBER,…" sep:"none" help:"Dial out to concentrators, or to an application server that holds them; repeatable."`
	Timings  []Timing        `name:"link-timing" placeholder:"NUMBER=TIMEOUT/GAP" sep:"none" help:"Response timeout and gap of one concentrator's bus, e.g. 301=30s/100ms for meters behind a slow radio; repeatable."`
	BusGap   time.Duration   `default:"20ms" help:"Silence on a bus between two exchanges."`
	BusQueue int             `default:"1000" help:"Most commands that one bus holds; one more is refused as busy."`
	Drain    time.Duration   `name:"gateway-drain" default:"20s" help:"How long giving up the links may take when this gateway is told to leave."`
	MaxLinks int             `default:"100000" help:"Most concentrators' connections; one more is closed."`
	Drivers  drivers.Drivers `embed:""`

	Metrics prometheus.Registerer `kong:"-"` // takes this gateway's metrics; may be nil
	Tracer  trace.Tracer          `kong:"-"` // nil if nobody collects traces
}

// Listen is PROTOCOL=HOST:PORT.
type Listen struct{ Protocol, Address string }

func (l *Listen) UnmarshalText(b []byte) error {
	protocol, address, ok := strings.Cut(string(b), "=")
	if _, _, err := net.SplitHostPort(address); !ok || err != nil {
		return fmt.Errorf("%q is not PROTOCOL=HOST:PORT, e.g. cjt188=127.0.0.1:7188", b)
	}
	*l = Listen{protocol, address}
	return nil
}

// Network is a range of addresses in CIDR notation, or a single address.
type Network netip.Prefix

func (n *Network) UnmarshalText(b []byte) error {
	network, err := netip.ParsePrefix(string(b))
	if address, single := netip.ParseAddr(string(b)); single == nil {
		address = address.Unmap()
		network, err = address.Prefix(address.BitLen())
	}
	if err != nil || network.Addr().Is4In6() {
		return fmt.Errorf("%q is neither a network nor an address, e.g. 10.0.0.0/24 or 192.0.2.7", b)
	}
	*n = Network(network)
	return nil
}

// Dial is PROTOCOL=HOST:PORT@NUMBER,…
type Dial struct {
	Protocol, Address string
	Concentrators     []meter.ConcentratorID
}

func (d *Dial) UnmarshalText(b []byte) error {
	target, numbers, at := strings.Cut(string(b), "@")
	var l Listen
	if err := l.UnmarshalText([]byte(target)); err != nil || !at {
		return fmt.Errorf("%q is not PROTOCOL=HOST:PORT@NUMBER,NUMBER…, e.g. clicktocopy=10.0.0.5:9092@101,102", b)
	}
	*d = Dial{Protocol: l.Protocol, Address: l.Address}
	for n := range strings.SplitSeq(numbers, ",") {
		c, err := meter.ParseConcentratorID(n)
		if err != nil {
			return fmt.Errorf("--dial %s: %s", b, meter.AsError(err).Message)
		}
		d.Concentrators = append(d.Concentrators, c)
	}
	return nil
}

// Timing is NUMBER=TIMEOUT/GAP.
type Timing struct {
	Concentrator    meter.ConcentratorID
	ResponseTimeout time.Duration
	Gap             time.Duration
}

func (t *Timing) UnmarshalText(b []byte) error {
	number, both, _ := strings.Cut(string(b), "=")
	timeout, gap, _ := strings.Cut(both, "/")
	var errs [3]error
	t.Concentrator, errs[0] = meter.ParseConcentratorID(number)
	t.ResponseTimeout, errs[1] = time.ParseDuration(timeout)
	t.Gap, errs[2] = time.ParseDuration(gap)
	if errors.Join(errs[:]...) != nil || t.ResponseTimeout <= 0 || t.ResponseTimeout > meter.MaxTimeout || t.Gap < 0 {
		return fmt.Errorf("%q is not NUMBER=TIMEOUT/GAP, e.g. 301=30s/100ms", b)
	}
	return nil
}

// Gateway is one running gateway. Make it with New.
type Gateway struct {
	config   Config
	id       meter.GatewayID
	log      *slog.Logger
	ready    chan struct{}
	commands chan *nats.Msg
	memory   *memory
	metrics  *metrics
	failures *telemetry.FailureLog
	draining atomic.Bool

	nc       *nats.Conn
	isolated atomic.Bool // from NATS
	presence *presence
	readings *readings
	claims   claims
	leases   leases
	sentinel sentinel
	instance string           // tells this life of the gateway from a former one with the same id
	anew     [2]chan struct{} // NATS is back: follow the buckets anew

	mu        sync.Mutex
	addresses map[string]string // protocol → where it listens
	holders   map[meter.ConcentratorID]*holding
	links     map[*link]struct{}
	logs      map[meter.ConcentratorID]*frameLog
	waiting   []waiting
	wait      sync.WaitGroup // of the links
}

// commandBuffer is how many commands may wait between NATS and the buses; NATS drops what comes on top, and the
// asker's edge answers for it at the deadline.
const commandBuffer = 65536

// New returns an error that names the setting that cannot be used.
func New(c Config) (*Gateway, error) {
	if c.ID == "" {
		c.ID = "gw-" + uuid.NewString()[:8]
	}
	id, err := meter.ParseGatewayID(c.ID)
	if err != nil {
		return nil, fmt.Errorf("--gateway-id: %s", meter.AsError(err).Message)
	}
	if c.BusQueue < 1 {
		return nil, fmt.Errorf("--bus-queue is %d, it must be at least 1", c.BusQueue)
	}
	for _, d := range c.Drivers.All() {
		if err := d.Validate(); err != nil {
			return nil, err
		}
	}
	g := &Gateway{
		config: c, id: id,
		log:       slog.With("gateway", id),
		ready:     make(chan struct{}),
		commands:  make(chan *nats.Msg, commandBuffer),
		memory:    newMemory(),
		addresses: make(map[string]string),
		holders:   make(map[meter.ConcentratorID]*holding),
		links:     make(map[*link]struct{}),
		logs:      make(map[meter.ConcentratorID]*frameLog),
		instance:  uuid.NewString(),
	}
	g.failures = telemetry.NewFailureLog(g.log)
	if g.metrics, err = newMetrics(g, c.Metrics); err != nil {
		return nil, fmt.Errorf("register the gateway's metrics: %w", err)
	}
	g.claims.gateway, g.claims.known = g, make(chan struct{})
	g.leases.left = make(chan struct{}, 1)
	g.sentinel = sentinel{gateway: g, waiting: make(map[string]*waiter), probed: make(map[meter.GatewayID]time.Time)}
	for i := range g.anew {
		g.anew[i] = make(chan struct{}, 1)
	}
	for _, l := range c.Listen {
		if d, err := c.Drivers.ByName(l.Protocol); err != nil {
			return nil, fmt.Errorf("--listen: %w", err)
		} else if !d.Traits().Listens {
			return nil, fmt.Errorf("--listen %s: concentrators of this protocol do not dial in, use --dial", l.Protocol)
		}
	}
	for _, l := range c.Dial {
		if d, err := c.Drivers.ByName(l.Protocol); err != nil {
			return nil, fmt.Errorf("--dial: %w", err)
		} else if !d.Traits().Dials {
			return nil, fmt.Errorf("--dial %s: concentrators of this protocol dial in by themselves, use --listen", l.Protocol)
		}
	}
	return g, nil
}

// Ready is closed once the gateway takes commands and concentrators.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Address returns where protocol's listener stands, HOST:PORT; valid after Ready.
func (g *Gateway) Address(protocol string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addresses[protocol]
}

const startTimeout = 30 * time.Second

// Run serves until ctx ends, then closes every link, and returns once all is down.
func (g *Gateway) Run(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	nc, err := bus.Connect(starting, bus.Options{URL: g.config.NATS, Name: "gateway " + g.id.String(), Buffer: true})
	if err != nil {
		return err
	}
	defer nc.Close()
	g.nc = nc
	// JetStream gets a connection of its own: a NATS server reads a connection in order, so while its disk is slow to
	// take a reading, an answer behind it would wait.
	store, err := bus.Connect(starting, bus.Options{URL: g.config.NATS, Name: "gateway " + g.id.String() + " (JetStream)", Reconnected: g.followAnew})
	if err != nil {
		return err
	}
	defer store.Close()
	js, err := jetstream.New(store, jetstream.WithPublishAsyncTimeout(readingsAck))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := bus.ProvisionWait(starting, js, g.config.Storage); err != nil {
		return err
	}
	kv, err := js.KeyValue(starting, meter.BucketLinks)
	if err != nil {
		return fmt.Errorf("open the bucket %s: %w", meter.BucketLinks, err)
	}
	leases, err := js.KeyValue(starting, meter.BucketGateways)
	if err != nil {
		return fmt.Errorf("open the bucket %s: %w", meter.BucketGateways, err)
	}
	g.presence = newPresence(nc, kv, g.claimed)
	g.readings = newReadings(js)
	if _, err := nc.Subscribe(meter.SubjectCancels, g.cancel); err != nil {
		return fmt.Errorf("subscribe to %s: %w", meter.SubjectCancels, err)
	}
	if _, err := nc.Subscribe(meter.SubjectAllFrames, g.framesAsked); err != nil {
		return fmt.Errorf("subscribe to %s: %w", meter.SubjectAllFrames, err)
	}
	if _, err := nc.Subscribe(meter.SubjectGateway(g.id), func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
		return fmt.Errorf("subscribe to %s: %w", meter.SubjectGateway(g.id), err)
	}
	listeners, err := g.listen()
	if err != nil {
		return err
	}

	// What outlives the links so that they can still say goodbye is stopped after them.
	writers, stopWriters := context.WithCancel(context.WithoutCancel(ctx))
	var tail errgroup.Group
	tail.Go(func() error { g.presence.run(writers); return nil })
	tail.Go(func() error { g.readings.run(writers); return nil })

	// While the links are given up one after another, the others still work.
	working, stopWork := context.WithCancel(writers)
	defer stopWork()
	var work errgroup.Group
	work.Go(func() error { g.dispatch(working); return nil })
	work.Go(func() error {
		bus.Follow(working, js, meter.BucketLinks, g.config.Storage, g.anew[0], &g.claims)
		return nil
	})
	work.Go(func() error {
		bus.Follow(working, js, meter.BucketGateways, g.config.Storage, g.anew[1], &g.leases)
		return nil
	})
	for _, d := range g.config.Dial {
		work.Go(func() error { g.dial(ctx, d); return nil })
	}

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { g.keepLease(running, leases); return nil })
	for _, l := range listeners {
		group.Go(func() error { return g.accept(running, l) })
	}
	close(g.ready)
	err = group.Wait()
	g.drain()
	g.sentinel.stop()
	g.closeLinks("the gateway was stopped")
	g.wait.Wait()
	stopWork()
	_ = work.Wait()
	stopWriters()
	_ = tail.Wait()
	_ = nc.FlushTimeout(time.Second) // the last answers; NATS may be gone already
	return err
}

func (g *Gateway) followAnew() {
	for _, c := range g.anew {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// cancel withdraws a command; see meter.SubjectCancel.
func (g *Gateway) cancel(m *nats.Msg) {
	var withdrawn meter.Cancel
	c, err := meter.ConcentratorOf(m.Subject)
	if err == nil {
		err = meter.DecodeJSON(m.Data, &withdrawn)
	}
	if err != nil {
		g.log.Warn("a cancel could not be understood", "subject", m.Subject, "err", err)
		return
	}
	if cmd, ok := g.memory.running(c, withdrawn.ID); ok {
		if l := g.holder(c); l != nil {
			l.cancel(cmd)
		}
	}
}

func (g *Gateway) driver(protocol string) driver.Driver {
	d, err := g.config.Drivers.ByName(protocol)
	if err != nil {
		panic(err) // New has looked
	}
	return d
}
