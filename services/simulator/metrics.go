package simulator

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// register has r tell how busy the town is; r may be nil.
func (s *Simulator) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	return errors.Join(
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dianchao_simulator_concentrators", Help: "Simulated concentrators that were connected at least once.",
		}, func() float64 { return float64(int64(len(s.concentrators)) - s.missing.Load()) })),
		r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dianchao_simulator_requests_total", Help: "Valid requests seen on all simulated buses.",
		}, func() float64 { return float64(s.requests.Load()) })),
	)
}

// Able returns why the town is not there yet, nil once every concentrator was connected.
func (s *Simulator) Able() error {
	if n := s.missing.Load(); n > 0 {
		return fmt.Errorf("%d simulated concentrators were not connected yet", n)
	}
	return nil
}
