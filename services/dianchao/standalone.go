package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/telemetry"
	"github.com/dianchao/dianchao/services/edge"
	"github.com/dianchao/dianchao/services/gateway"
	"github.com/dianchao/dianchao/services/simulator"
)

// standaloneCommand composes the services over an embedded NATS; they reach each other over NATS and TCP only,
// as they do when each is a process of its own.
type standaloneCommand struct {
	NATS      string           `name:"nats" default:"127.0.0.1:4222" placeholder:"HOST:PORT" help:"Where the embedded NATS listens, for the NATS CLI."`
	Store     string           `placeholder:"DIR" help:"Where the embedded NATS keeps the readings. Default: in memory, gone at the end."`
	Edge      edge.Config      `embed:""`
	Gateway   gateway.Config   `embed:""`
	Simulator simulator.Config `embed:""`
	Telemetry telemetry.Config `embed:""`
}

const simulatedProtocol = "cjt188"

func (c standaloneCommand) Run(ctx context.Context) error {
	s := newStandalone(c)
	return runReady(ctx, s, s.announce)
}

// standalone is the running composition. Its parts are set once Ready is closed.
type standalone struct {
	config    standaloneCommand
	ready     chan struct{}
	telemetry *telemetry.Telemetry
	nats      *bus.Server
	edge      *edge.Edge
	gateway   *gateway.Gateway
	simulator *simulator.Simulator // nil if no town is simulated
}

func newStandalone(c standaloneCommand) *standalone {
	return &standalone{config: c, ready: make(chan struct{})}
}

// Ready is closed once a click would be answered.
func (s *standalone) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then stops edge, simulator, gateway and NATS, in this order.
func (s *standalone) Run(ctx context.Context) (err error) {
	if s.telemetry, err = telemetry.New(ctx, s.config.Telemetry, "standalone", version); err != nil {
		return err
	}
	defer s.telemetry.Close()
	store := s.config.Store
	if store == "" {
		if store, err = os.MkdirTemp("", "dianchao-"); err != nil {
			return fmt.Errorf("make a temporary directory for NATS: %w", err)
		}
		defer os.RemoveAll(store)
	}
	if s.nats, err = bus.Embed(s.config.NATS, store); err != nil {
		return err
	}
	defer s.nats.Close()
	if err := s.compose(); err != nil {
		return err
	}
	s.telemetry.Serve(s.able)

	// The gateway goes last, so that what browsers wait for is still answered.
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	rest, stopRest := context.WithCancel(failed)
	defer stopRest()
	edges, stopEdge := context.WithCancel(rest)
	defer stopEdge()
	defer context.AfterFunc(ctx, stopEdge)()
	group.Go(func() error { return s.gateway.Run(rest) })
	group.Go(func() error {
		defer stopRest()
		return s.edge.Run(edges)
	})
	if reached(rest, s.gateway.Ready()) && reached(rest, s.edge.Ready()) && s.startTown(rest, group) {
		close(s.ready)
	}
	return group.Wait()
}

func (s *standalone) compose() (err error) {
	c := s.config
	c.Edge.NATS, c.Gateway.NATS = s.nats.URL(), s.nats.URL()
	c.Edge.Metrics, c.Gateway.Metrics = s.telemetry.Registry, s.telemetry.Registry
	c.Edge.Tracer, c.Gateway.Tracer = s.telemetry.Tracer, s.telemetry.Tracer
	c.Edge.Version = version
	// What is removed at the end need not go to a disk, whose hesitations this one process would feel.
	c.Edge.Storage.InMemory = s.config.Store == ""
	c.Gateway.Storage.InMemory = s.config.Store == ""
	if s.gateway, err = gateway.New(c.Gateway); err != nil {
		return err
	}
	for _, m := range c.Simulator.Town.Directory() {
		c.Edge.Directory = append(c.Edge.Directory, edge.ListedMeter(m))
	}
	s.edge, err = edge.New(c.Edge)
	return err
}

// able returns why a click would not be answered now.
func (s *standalone) able() error {
	return cmp.Or(s.gateway.Able(), s.edge.Able())
}

// startTown starts the simulator, if one is wanted, and waits until every concentrator has logged in.
func (s *standalone) startTown(ctx context.Context, group *errgroup.Group) bool {
	if s.config.Simulator.Town.Concentrators == 0 {
		return true
	}
	town, err := s.newTown()
	if err != nil {
		group.Go(func() error { return err })
		return false
	}
	s.simulator = town
	group.Go(func() error { return town.Run(ctx) })
	return reached(ctx, town.Ready()) && reached(ctx, s.gateway.Holds(s.config.Simulator.Town.Concentrators))
}

func (s *standalone) newTown() (*simulator.Simulator, error) {
	address := s.gateway.Address(simulatedProtocol)
	if address == "" {
		return nil, fmt.Errorf("the simulated town needs --listen %s=HOST:PORT (or --simulate 0)", simulatedProtocol)
	}
	c := s.config.Simulator
	c.Gateway, c.Metrics = address, s.telemetry.Registry
	return simulator.New(c)
}

// reached waits for ready; false if ctx ended first.
func reached(ctx context.Context, ready <-chan struct{}) bool {
	select {
	case <-ready:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *standalone) announce() {
	fmt.Printf("\n  dianchao %s is ready\n\n", version)
	fmt.Printf("  console        %s\n", localhost(s.edge.URL()))
	fmt.Printf("  NATS           %s\n", s.nats.URL())
	fmt.Printf("  concentrators  %s\n", addresses(s.gateway, s.config.Gateway.Listen))
	if t := s.config.Simulator.Town; t.Concentrators > 0 {
		fmt.Printf("  simulated      %d concentrators with %d meters each, e.g. meter 101001 behind 101\n", t.Concentrators, t.Meters)
	}
	fmt.Printf("\n  Ctrl-C stops it.\n\n")
}

// localhost writes a loopback URL the way people do.
func localhost(url string) string { return strings.Replace(url, "//127.0.0.1:", "//localhost:", 1) }

// addresses lists where a gateway listens, e.g. "cjt188=127.0.0.1:7188".
func addresses(g *gateway.Gateway, listens []gateway.Listen) string {
	var all []string
	for _, l := range listens {
		all = append(all, l.Protocol+"="+g.Address(l.Protocol))
	}
	if len(all) == 0 {
		return "none dial in"
	}
	return strings.Join(all, " ")
}
