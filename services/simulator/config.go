package simulator

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a simulated town needs to know. Its tags declare flags, environment and --help.
type Config struct {
	Gateway   string        `kong:"-"` // a gateway's cjt188 listener, HOST:PORT
	Town      Town          `name:"simulate" help:"Size of the simulated town, 0 for none." placeholder:"CONCENTRATORSxMETERS" default:"3x20"`
	Heartbeat time.Duration `name:"simulate-heartbeat" help:"How often a simulated concentrator sends its heartbeat LOG, 0 for never." default:"30s"`
	Delay     time.Duration `name:"simulate-delay" help:"How long a simulated meter takes to answer." default:"0s"`
	Seed      uint64        `name:"simulate-seed" help:"What the faults are drawn from: the same seed and requests give the same faults." default:"1"`
	Control   string        `name:"simulate-control" help:"Where to serve HTTP for pulling plugs: GET /concentrators, POST /concentrators/101/unplug and /plug. Empty for nowhere." placeholder:"HOST:PORT"`
	Faults    Faults        `embed:"" prefix:"simulate-fault-"`

	Metrics prometheus.Registerer `kong:"-"` // takes the town's metrics; may be nil
}

func (c Config) validate() error {
	if err := c.Town.validate(); err != nil {
		return err
	}
	if c.Town.Concentrators > 0 {
		if _, _, err := net.SplitHostPort(c.Gateway); err != nil {
			return fmt.Errorf("the gateway's address %q is not HOST:PORT: %w", c.Gateway, err)
		}
	}
	if c.Heartbeat < 0 {
		return fmt.Errorf("the heartbeat interval %s is negative, 0 means never", c.Heartbeat)
	}
	if c.Delay < 0 {
		return errors.New("the delay " + c.Delay.String() + " is negative")
	}
	return c.Faults.validate()
}
