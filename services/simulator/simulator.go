package simulator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/dianchao/dianchao/pkg/meter"
)

// dialsAtOnce bounds how many concentrators connect at the same moment: a town whose gateway comes back must not
// be a flood of half-open connections.
const dialsAtOnce = 64

// Simulator is a running town.
type Simulator struct {
	config        Config
	concentrators []*concentrator
	dialing       chan struct{}
	missing       atomic.Int64 // concentrators that were never connected
	ready         chan struct{}
	requests      atomic.Int64
	controlAddr   atomic.Value // string
	complaint     rate.Sometimes
}

// New makes the town but starts nothing. It returns an error that names the field whose value cannot be used.
func New(config Config) (*Simulator, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	s := &Simulator{
		config:    config,
		dialing:   make(chan struct{}, dialsAtOnce),
		ready:     make(chan struct{}),
		complaint: rate.Sometimes{First: 1, Interval: 10 * time.Second},
	}
	s.missing.Store(int64(config.Town.Concentrators))
	if config.Town.Concentrators == 0 {
		close(s.ready)
	}
	for i := range config.Town.Concentrators {
		s.concentrators = append(s.concentrators, newConcentrator(s, firstConcentrator+i))
	}
	if err := s.register(config.Metrics); err != nil {
		return nil, fmt.Errorf("register the simulator's metrics: %w", err)
	}
	return s, nil
}

// Run keeps the town connected until ctx ends; then it returns nil once every goroutine and connection of it is
// gone. It returns an error early only if Config.Control cannot be listened on. Call it once.
func (s *Simulator) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	if s.config.Control != "" {
		closeControl, err := s.serveControl(ctx)
		if err != nil {
			return err
		}
		defer closeControl()
	}
	for _, c := range s.concentrators {
		running.Go(func() { c.run(ctx) })
	}
	<-ctx.Done()
	for _, c := range s.concentrators {
		c.hangUp()
	}
	return nil
}

// Ready is closed once every concentrator was connected once.
func (s *Simulator) Ready() <-chan struct{} { return s.ready }

func (s *Simulator) connectedFirst(number int) {
	slog.Debug("a simulated concentrator is connected", "concentrator", number)
	if s.missing.Add(-1) == 0 {
		slog.Info("the simulated town is connected", "town", s.config.Town, "gateway", s.config.Gateway)
		close(s.ready)
	}
}

// Frames is how many valid requests for this meter were seen on its bus, whether it answered or not.
func (s *Simulator) Frames(c meter.ConcentratorID, m meter.Address) int {
	p, ok := placeOf(m.String())
	if !ok || !s.config.Town.has(p) || p.concentratorID() != c {
		return 0
	}
	return s.concentrators[p.concentrator-firstConcentrator].framesOf(p.meter)
}

// TotalFrames is how many valid requests were seen on all buses, for whatever address.
func (s *Simulator) TotalFrames() int { return int(s.requests.Load()) }

// Unplug drops the concentrator's connection and keeps it away until Plug. It returns an error if the town has
// no such concentrator.
func (s *Simulator) Unplug(id meter.ConcentratorID) error {
	c, err := s.concentrator(id)
	if err != nil {
		return err
	}
	c.unplug()
	return nil
}

// Plug lets the concentrator connect again, at once. It returns an error if the town has no such concentrator.
func (s *Simulator) Plug(id meter.ConcentratorID) error {
	c, err := s.concentrator(id)
	if err != nil {
		return err
	}
	c.plug()
	return nil
}

func (s *Simulator) concentrator(id meter.ConcentratorID) (*concentrator, error) {
	number, ok := numberOf(id)
	if !ok || !s.config.Town.hasConcentrator(number) {
		return nil, fmt.Errorf("the simulated town %s has no concentrator %s, its concentrators start at %d", s.config.Town, id, firstConcentrator)
	}
	return s.concentrators[number-firstConcentrator], nil
}
