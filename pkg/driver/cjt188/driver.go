// Package cjt188 speaks CJ/T 188 (2004 and 2018), the protocol of water, heat and gas meters, over concentrators
// that pass bytes through (DTU, 透传): they name themselves with a registration packet, send heartbeats of their
// owner's choice, and otherwise carry the meters' frames as they are.
package cjt188

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Driver is the protocol with its options. New gives the defaults that the tags state.
type Driver struct {
	Registration    Pattern       `name:"registration" default:"LOGIN:(?P<number>[0-9]{1,32})" placeholder:"REGEXP" help:"What a concentrator sends to name itself: a regular expression whose group \"number\" is its number (default LOGIN: and digits)."`
	Heartbeats      []Heartbeat   `name:"heartbeat" default:"LOG" sep:"none" placeholder:"TEXT" help:"A heartbeat of the concentrators, as text or as hex:FEFE; repeatable, empty for none."`
	MeterType       MeterType     `name:"meter-type" default:"10" placeholder:"HEX" help:"The type T that requests carry: 10 cold water, 20 heat, 30 gas."`
	DIOrder         Order         `name:"di-order" default:"901F" enum:"901F,1F90" help:"How requests spell the data identifier: 901F (2004) or 1F90 (2018). Answers may come in either order."`
	Serial          SerialRule    `name:"serial" default:"strict" enum:"strict,any" help:"Whether an answer must repeat the request's serial number: strict, or any for meters that never do, at the price that a late answer of the same meter cannot be told."`
	ResponseTimeout time.Duration `name:"response-timeout" default:"3s" help:"How long a meter may take to answer: 2s are usual on a wire, up to 30s over radio."`
	Retries         int           `name:"retries" default:"1" help:"How often a read is repeated inside its deadline because what came was noise; 0 for meters whose battery allows few reads."`
	Gap             time.Duration `name:"gap" default:"0s" help:"Silence on the bus between two exchanges; 0 leaves it to --bus-gap."`
	Quiet           time.Duration `name:"quiet" default:"300ms" help:"The silence that ends a registration packet or gives up an incomplete frame."`
}

var _ driver.Driver = (*Driver)(nil)

// New returns the driver with its defaults.
func New() Driver {
	var d Driver
	if err := kong.ApplyDefaults(&d); err != nil {
		panic("cjt188: the defaults in Driver's tags: " + err.Error())
	}
	return d
}

// Name implements driver.Driver.
func (d *Driver) Name() string { return "cjt188" }

// Validate implements driver.Driver.
func (d *Driver) Validate() error {
	if d.Registration.expression == nil {
		return fmt.Errorf("cjt188-registration is missing")
	}
	for _, h := range d.Heartbeats {
		if err := h.validate(); err != nil {
			return fmt.Errorf("cjt188-heartbeat: %w", err)
		}
	}
	if d.DIOrder != HighFirst && d.DIOrder != LowFirst {
		return fmt.Errorf("cjt188-di-order is %q, it must be %s or %s", d.DIOrder, HighFirst, LowFirst)
	}
	if d.Serial != SerialStrict && d.Serial != SerialAny {
		return fmt.Errorf("cjt188-serial is %q, it must be %s or %s", d.Serial, SerialStrict, SerialAny)
	}
	if d.Gap < 0 {
		return fmt.Errorf("cjt188-gap is %s, it cannot be negative", d.Gap)
	}
	if d.Retries < 0 || d.Retries > 10 {
		return fmt.Errorf("cjt188-retries is %d, it must be from 0 to 10", d.Retries)
	}
	if d.ResponseTimeout <= 0 || d.ResponseTimeout > meter.MaxTimeout {
		return fmt.Errorf("cjt188-response-timeout is %v, it must be above 0 and at most %v", d.ResponseTimeout, meter.MaxTimeout)
	}
	if d.Quiet <= 0 || d.Quiet > d.ResponseTimeout {
		return fmt.Errorf("cjt188-quiet is %v, it must be above 0 and at most cjt188-response-timeout (%v)", d.Quiet, d.ResponseTimeout)
	}
	return nil
}

// Traits implements driver.Driver.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{
		Listens:         true,
		Dials:           true, // serial device servers are TCP servers
		ResponseTimeout: d.ResponseTimeout,
		Quiet:           d.Quiet,
		Retries:         d.Retries,
		Gap:             d.Gap,
		MaxFrame:        window,
	}
}

// Canonical implements driver.Driver: up to 14 decimal digits, padded with zeros on the left.
func (d *Driver) Canonical(m meter.Address) (meter.Address, error) {
	const digits = 2 * len(Address{})
	s := m.String()
	if m.IsZero() || len(s) > digits || strings.Trim(s, "0123456789") != "" {
		return m, meter.Errorf(meter.CodeBadCommand, "meter address %q is none of CJ/T 188: it must be 1 to %d digits", s, digits)
	}
	return meter.ParseAddress(strings.Repeat("0", digits-len(s)) + s)
}

// NewLink implements driver.Driver. The options must be valid.
func (d *Driver) NewLink(dialed bool) driver.Link {
	l := &link{driver: d, registers: !dialed, serial: byte(rand.N(256))}
	for _, h := range d.Heartbeats {
		if h != "" {
			l.heartbeats = append(l.heartbeats, []byte(h))
		}
	}
	slices.SortStableFunc(l.heartbeats, func(a, b []byte) int { return len(b) - len(a) })
	return l
}
