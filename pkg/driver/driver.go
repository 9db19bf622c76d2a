// Package driver says what a meter protocol has to know so that the gateway can speak it.
//
// A driver does no I/O, holds no clock and starts no goroutine: the gateway owns connection, bus and time, the
// driver turns commands into bytes and bytes into what they mean. So a driver is tested on bytes alone;
// drivertest.Run holds every driver to the same contract. docs/drivers.md walks through adding one.
package driver

import (
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Driver knows one protocol. Its exported fields are its options, declared with kong tags, so that flags,
// environment and --help come from them. Methods are safe for concurrent use.
type Driver interface {
	// Name is what --listen and --dial call the protocol, e.g. "cjt188".
	Name() string
	// Validate returns an error that names the option whose value cannot be used.
	Validate() error
	// Traits says how the gateway is to treat this protocol's links.
	Traits() Traits
	// Canonical returns the one spelling of a meter's address on this protocol's bus, e.g. padded with zeros,
	// so that two spellings share an exchange. It returns CodeBadCommand, naming the address, if the protocol
	// cannot express it.
	Canonical(meter.Address) (meter.Address, error)
	// NewLink returns the protocol's state for one new connection. dialed says that we opened it, so that who
	// is at its far end is known and no registration comes.
	NewLink(dialed bool) Link
}

// Traits are the properties of a protocol that the gateway acts upon.
type Traits struct {
	Listens bool // concentrators can dial in to us
	Dials   bool // we can dial out to concentrators

	// ResponseTimeout is how long after a frame's last byte the whole answer may take.
	ResponseTimeout time.Duration
	// Gap is the silence that this protocol's buses need between two exchanges; 0 leaves it to the gateway's --bus-gap.
	Gap time.Duration
	// Quiet is the silence after which bytes that stand incomplete will not be completed any more. Zero if
	// only the end of an exchange tells.
	Quiet time.Duration
	// Window is how many exchanges a concentrator takes at once; 0 counts as 1.
	Window int
	// Retries is how often an exchange is repeated because what came was noise. 0 for meters that allow one readout
	// in a while and must not be asked blindly.
	Retries int
	// MaxFrame bounds how many bytes can stand incomplete.
	MaxFrame int
}

// Link is the protocol's side of one connection. The gateway calls it from one goroutine at a time.
type Link interface {
	// Next looks at the bytes that were received and not yet consumed, and returns what stands first and how
	// many bytes it takes. n = 0: more bytes are needed to tell. quiet says that no more are coming for now:
	// then, if b is not empty, n > 0. What Next returns may alias b.
	Next(b []byte, quiet bool) (e Event, n int)
	// Request starts an exchange that reads a meter's current data. The address is canonical.
	Request(c meter.ConcentratorID, m meter.Address) Exchange
}

// Kind is what bytes turned out to be.
type Kind uint8

const (
	Noise        Kind = iota + 1 // nothing this protocol knows
	Registration                 // the far end names itself: Event.Concentrator
	Heartbeat                    // the far end is alive, nothing more
	Frame                        // a whole valid frame; exchanges judge it
)

// Event is what stood first in the bytes of a link.
type Event struct {
	Kind         Kind
	Raw          []byte               // the bytes as they came, without heartbeats that split them
	Concentrator meter.ConcentratorID // Registration
	Reply        []byte               // to be sent back at once, if any: a confirmation
}

// Exchange is one request and what is an answer to it.
type Exchange interface {
	// Frame is what goes out.
	Frame() []byte
	// Judge says whether a Frame event's bytes answer this exchange.
	Judge(frame []byte) Verdict
}

// Verdict is what a frame is to an exchange: exactly one of its fields is set.
type Verdict struct {
	Reading *meter.Reading // it is the answer
	Err     *meter.Error   // it is the answer, and the meter refuses (CodeMeterRefused) or makes no sense (CodeBadAnswer)
	Foreign string         // it is not the answer, because of this: "meter 00000000101002 answered"
}

// Answers reports whether the frame ends the exchange.
func (v Verdict) Answers() bool { return v.Foreign == "" }

// Describer is a Driver that can say in one line what a frame means, for the log of a link.
type Describer interface {
	// Describe returns "" for what it does not know.
	Describe(frame []byte) string
}
