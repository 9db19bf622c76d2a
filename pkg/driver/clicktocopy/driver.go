// Package clicktocopy speaks the ClickToCopy dialect to an application server of the original kind: we dial it and
// ask, one JSON object a message on TCP, no delimiter and no length; it holds the concentrators.
package clicktocopy

import (
	"fmt"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Driver is the protocol with its options. New gives the defaults that the tags state.
type Driver struct {
	ResponseTimeout time.Duration `name:"response-timeout" default:"15s" help:"How long the application server may take to answer; it waits for its own concentrators."`
	Quiet           time.Duration `name:"quiet" default:"2s" help:"The silence that gives up an incomplete object."`
}

var _ driver.Driver = (*Driver)(nil)

// New returns the driver with its defaults.
func New() Driver {
	var d Driver
	if err := kong.ApplyDefaults(&d); err != nil {
		panic("clicktocopy: the defaults in Driver's tags: " + err.Error())
	}
	return d
}

// Name implements driver.Driver.
func (d *Driver) Name() string { return "clicktocopy" }

// Validate implements driver.Driver.
func (d *Driver) Validate() error {
	if d.ResponseTimeout <= 0 || d.ResponseTimeout > meter.MaxTimeout {
		return fmt.Errorf("clicktocopy-response-timeout is %v, it must be above 0 and at most %v", d.ResponseTimeout, meter.MaxTimeout)
	}
	if d.Quiet <= 0 || d.Quiet > d.ResponseTimeout {
		return fmt.Errorf("clicktocopy-quiet is %v, it must be above 0 and at most clicktocopy-response-timeout (%v)", d.Quiet, d.ResponseTimeout)
	}
	return nil
}

// Traits implements driver.Driver.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{Dials: true, ResponseTimeout: d.ResponseTimeout, Quiet: d.Quiet, MaxFrame: window}
}

// Canonical implements driver.Driver: the application server knows its meters by any text.
func (d *Driver) Canonical(m meter.Address) (meter.Address, error) {
	return meter.ParseAddress(m.String())
}

// NewLink implements driver.Driver. The protocol keeps no state of a connection.
func (d *Driver) NewLink(bool) driver.Link { return link{} }
