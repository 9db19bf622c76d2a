// Package drivertest is the contract that every driver keeps, as one test: Run. What a link does to bytes is
// the same for all protocols (it splits, glues, loses and invents them), so a driver only has to say how its
// meters talk.
package drivertest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Case is how one protocol's far end talks.
type Case struct {
	Driver       driver.Driver
	Concentrator string
	Meters       [2]string // addresses of two meters, as a user types them

	// Registrations name Concentrator; Heartbeats only say that it is alive. Both empty if the protocol has none.
	Registrations []string
	Heartbeats    []string
	// Noise are bytes that the protocol knows nothing of and that begin nothing it knows.
	Noise []string

	// Answer is what the meter that was asked sends back: a reading of this volume.
	Answer func(request []byte, volume meter.Decimal) []byte
	// Corrupt damages an answer so that it is none any more.
	Corrupt func(answer []byte) []byte
	// Refuse is the meter's error answer; nil if the protocol has none.
	Refuse func(request []byte) []byte
	// Serials says that the protocol can tell two requests to one meter apart.
	Serials bool
}

// Run holds c.Driver to the contract of package driver.
func Run(t *testing.T, c Case) {
	for _, contract := range []struct {
		name string
		test func(*testing.T, Case)
	}{
		{"the options are valid and the traits usable", testTraits},
		{"a canonical address is canonical", testCanonical},
		{"the answer is recognised, whole or in pieces", testPieces},
		{"glued answers are told apart", testGlued},
		{"noise before and behind an answer", testNoise},
		{"a corrupt answer is none, and the next one is not lost", testCorrupt},
		{"an answer that stops short is given up in silence", testTruncated},
		{"another meter's answer is foreign", testOtherMeter},
		{"another concentrator's exchange keeps to itself", testTwoLinks},
		{"a late answer is its own exchange's", testLate},
		{"an error answer ends the exchange", testRefusal},
		{"heartbeats around and inside an answer", testHeartbeats},
		{"registrations, split and glued", testRegistrations},
		{"a link that we dialed takes no registration", testDialed},
		{"garbage terminates and hides nothing for ever", testGarbage},
	} {
		t.Run(contract.name, func(t *testing.T) { contract.test(t, c) })
	}
}

// setup is a fresh link of the case with a finished handshake.
type setup struct {
	*testing.T
	Case
	stream
	concentrator meter.ConcentratorID
}

func newSetup(t *testing.T, c Case) *setup {
	t.Helper()
	id, err := meter.ParseConcentratorID(c.Concentrator)
	if err != nil {
		t.Fatalf("the case's concentrator: %v", err)
	}
	return &setup{t, c, newStream(t, c.Driver, !c.Driver.Traits().Listens), id}
}

// ask starts an exchange with one of the case's meters.
func (s *setup) ask(i int) driver.Exchange {
	s.Helper()
	return s.link.Request(s.concentrator, s.address(i))
}

func (s *setup) address(i int) meter.Address {
	s.Helper()
	address, err := meter.ParseAddress(s.Meters[i])
	if err != nil {
		s.Fatalf("the case's meter: %v", err)
	}
	canonical, err := s.Driver.Canonical(address)
	if err != nil {
		s.Fatalf("Canonical(%s): %v", address, err)
	}
	return canonical
}

var someVolume, otherVolume = meter.NewDecimal(12345, 2), meter.NewDecimal(67890, 2)

// wantReading fails unless v is a reading of this volume.
func (s *setup) wantReading(v driver.Verdict, volume meter.Decimal) {
	s.Helper()
	if !v.Answers() || v.Err != nil || v.Reading == nil {
		s.Fatalf("verdict %+v, want a reading", v)
	}
	if v.Reading.Volume == nil || v.Reading.Volume.Cmp(volume) != 0 {
		s.Fatalf("volume %v, want %v", v.Reading.Volume, volume)
	}
}

func (s *setup) wantForeign(v driver.Verdict) {
	s.Helper()
	if v.Answers() || v.Reading != nil || v.Err != nil {
		s.Fatalf("verdict %+v, want foreign", v)
	}
}

// answered fails unless exactly one frame came, and it answers x with this volume.
func (s *setup) answered(events []driver.Event, x driver.Exchange, volume meter.Decimal) {
	s.Helper()
	frames := framesIn(events)
	if len(frames) != 1 {
		s.Fatalf("%d frames, want one: %s", len(frames), describe(events))
	}
	s.wantReading(x.Judge(frames[0]), volume)
}

func framesIn(events []driver.Event) (frames [][]byte) {
	for _, e := range events {
		if e.Kind == driver.Frame {
			frames = append(frames, e.Raw)
		}
	}
	return frames
}

func kindsIn(events []driver.Event, kind driver.Kind) int {
	n := 0
	for _, e := range events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// cut returns b in two pieces.
func cut(b []byte, at int) [][]byte { return [][]byte{b[:at], b[at:]} }

// single returns b in pieces of one byte.
func single(b []byte) [][]byte { return slices.Collect(slices.Chunk(b, 1)) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
