package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// Edge is one edge node.
type Edge struct {
	config    Config
	id        meter.EdgeID
	pace      pace
	directory directory
	assets    assets
	log       *slog.Logger

	metrics  *metrics
	failures *telemetry.FailureLog

	board  *board
	roster *roster
	nc     *nats.Conn
	js     jetstream.JetStream

	reconnected chan struct{} // NATS came back and the links were not looked at since
	lostAt      atomic.Int64  // when NATS was lost last, Unix nanoseconds
	backAt      atomic.Int64  // when it came back last
	late        atomic.Int64  // answers that nobody waited for any more

	draining chan struct{}   // closed once this node is about to leave
	life     context.Context // ends when the last sessions are cut off
	ready    chan struct{}
	url      string
}

// New returns an edge node that is not running yet, or an error that names the option that cannot be used.
func New(c Config) (*Edge, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	id, err := parseOrMakeID(c.ID)
	if err != nil {
		return nil, fmt.Errorf("--edge-id: %w", err)
	}
	listed := c.Directory
	if c.Meters != "" {
		fromFile, err := loadMeters(c.Meters)
		if err != nil {
			return nil, fmt.Errorf("--meters: %w", err)
		}
		listed = append(fromFile, listed...)
	}
	console, err := loadAssets()
	if err != nil {
		return nil, err
	}
	e := &Edge{
		config: c, id: id, pace: usualPace,
		directory: newDirectory(listed), assets: console,
		log:         slog.With("edge", id.String()),
		board:       newBoard(),
		roster:      newRoster(c.MaxSessions),
		reconnected: make(chan struct{}, 1),
		draining:    make(chan struct{}),
		ready:       make(chan struct{}),
	}
	e.failures = telemetry.NewFailureLog(e.log)
	if e.metrics, err = newMetrics(e, c.Metrics); err != nil {
		return nil, fmt.Errorf("register the edge's metrics: %w", err)
	}
	return e, nil
}

// Ready is closed once the node serves.
func (e *Edge) Ready() <-chan struct{} { return e.ready }

// URL is the address of the console, e.g. http://127.0.0.1:7759. It is valid once Ready is closed.
func (e *Edge) URL() string { return e.url }

// Run serves until ctx ends, then drains: new reads are refused, those that are outstanding are answered or, once
// Config.Drain is over, failed. It returns an error if the node could not start, or the listener broke. An Edge runs once.
func (e *Edge) Run(ctx context.Context) error {
	// The port comes first: that it is taken should be said before anything waits for NATS.
	listener, err := listen(e.config.HTTP)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := e.join(ctx); err != nil {
		return err
	}

	life, kill := context.WithCancel(context.Background())
	defer kill()
	e.life = life
	var owned sync.WaitGroup
	defer owned.Wait()
	// The connection is closed while what uses it is told to stop, so that nothing waits for a NATS server that is away.
	defer func() { kill(); e.nc.Close() }()
	owned.Go(func() { e.keepLinks(life) })
	select {
	case <-e.board.known:
	case <-ctx.Done():
		return fmt.Errorf("the bucket %s could not be read: %w", meter.BucketLinks, ctx.Err())
	}

	server := e.server()
	broken := make(chan error, 1)
	owned.Go(func() { broken <- server.Serve(listener) })
	defer server.Close()
	e.url = "http://" + visibleAddress(listener.Addr())
	close(e.ready)
	e.log.Info("edge serves", "url", e.url)

	select {
	case err := <-broken:
		return fmt.Errorf("the listener on %s broke: %w", e.config.HTTP, err)
	case <-ctx.Done():
	}
	e.drain(listener, func() { kill(); server.Close() })
	// The last answers over plain HTTP may still be on their way out of the server.
	last, cancel := context.WithTimeout(context.Background(), e.pace.handshake)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		e.log.Debug("some connections were cut off", "err", err)
	}
	e.log.Info("edge left", "late_answers", e.late.Load())
	return nil
}

// join connects to NATS and takes the answers of this node.
func (e *Edge) join(ctx context.Context) error {
	nc, err := bus.Connect(ctx, bus.Options{
		URL: e.config.NATS, Name: "edge " + e.id.String(),
		Lost: func() { e.lostAt.Store(time.Now().UnixNano()) },
		Reconnected: func() {
			e.backAt.Store(time.Now().UnixNano())
			select {
			case e.reconnected <- struct{}{}:
			default:
			}
			e.askAgain()
		},
	})
	if err != nil {
		return err
	}
	e.nc = nc
	if _, err := nc.Subscribe(meter.SubjectReplies(e.id), e.onReply); err != nil {
		nc.Close()
		return fmt.Errorf("subscribe to answers: %w", err)
	}
	if e.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := e.provision(ctx); err != nil {
		nc.Close()
		return err
	}
	return nil
}

// drain lets every session end by itself, and cuts off those that have not by the end of Config.Drain.
func (e *Edge) drain(listener net.Listener, cut func()) {
	close(e.draining)
	listener.Close()
	gone := e.roster.close()
	select {
	case <-gone:
		return
	case <-time.After(e.config.Drain):
	}
	for _, s := range e.roster.all() {
		s.abandon()
	}
	select {
	case <-gone:
		return
	case <-time.After(2 * e.pace.handshake):
	}
	cut()
	<-gone
}

func (e *Edge) isDraining() bool {
	select {
	case <-e.draining:
		return true
	default:
		return false
	}
}

func (e *Edge) connected() bool { return e.nc.Status() == nats.CONNECTED }

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program: stop it, or choose another address with --http", address)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot serve on %s (--http): %w", address, err)
	}
	return l, nil
}

// visibleAddress is an address that a browser on this machine can open: a listener on every address has none itself.
func visibleAddress(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	return fmt.Sprintf("localhost:%d", tcp.Port)
}

// server returns the HTTP server with bounds on what a slow client can hold. There is none on a whole request or
// answer: a read waits for up to two minutes, so its handler sets the deadlines of its own body and writes.
func (e *Edge) server() *http.Server {
	return &http.Server{
		Handler:           e.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
}
