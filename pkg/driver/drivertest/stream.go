package drivertest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
)

// stream feeds a link as the gateway does: bytes are appended as they come, and what Next takes is dropped.
// It checks on every call what Next promises.
type stream struct {
	t       *testing.T
	link    driver.Link
	limit   int // Traits.MaxFrame
	pending []byte
}

func newStream(t *testing.T, d driver.Driver, dialed bool) stream {
	return stream{t: t, link: d.NewLink(dialed), limit: d.Traits().MaxFrame}
}

// receive returns what the pieces turn out to be while more can come.
func (s *stream) receive(pieces ...[]byte) (events []driver.Event) {
	s.t.Helper()
	for _, piece := range pieces {
		s.pending = append(s.pending, piece...)
		events = append(events, s.drain(false)...)
		if len(s.pending) > s.limit {
			s.t.Fatalf("%d bytes stand incomplete, MaxFrame is %d: % X", len(s.pending), s.limit, s.pending)
		}
	}
	return events
}

// silence returns what is left once nothing more comes.
func (s *stream) silence() []driver.Event {
	s.t.Helper()
	events := s.drain(true)
	if len(s.pending) > 0 {
		s.t.Fatalf("% X is still there after a silence", s.pending)
	}
	return events
}

// all is receive and then silence.
func (s *stream) all(pieces ...[]byte) []driver.Event {
	s.t.Helper()
	return append(s.receive(pieces...), s.silence()...)
}

func (s *stream) drain(quiet bool) (events []driver.Event) {
	s.t.Helper()
	for len(s.pending) > 0 {
		before := bytes.Clone(s.pending)
		e, n := s.link.Next(s.pending, quiet)
		if !bytes.Equal(before, s.pending) {
			s.t.Fatalf("Next changed the bytes % X into % X", before, s.pending)
		}
		if n < 0 || n > len(s.pending) {
			s.t.Fatalf("Next took %d of %d bytes", n, len(s.pending))
		}
		if n == 0 {
			if quiet {
				s.t.Fatalf("Next makes nothing of % X in a silence", s.pending)
			}
			return events
		}
		s.check(e, s.pending[:n])
		e.Raw = bytes.Clone(e.Raw)
		events = append(events, e)
		s.pending = s.pending[n:]
	}
	return events
}

func (s *stream) check(e driver.Event, taken []byte) {
	s.t.Helper()
	switch e.Kind {
	case driver.Noise, driver.Heartbeat, driver.Registration:
		if !bytes.Equal(e.Raw, taken) {
			s.t.Fatalf("event %s took % X", describe([]driver.Event{e}), taken)
		}
	case driver.Frame:
		if len(e.Raw) == 0 || len(e.Raw) > len(taken) {
			s.t.Fatalf("a frame of %d bytes was made of %d", len(e.Raw), len(taken))
		}
	default:
		s.t.Fatalf("unknown kind of event %d for % X", e.Kind, taken)
	}
	if named := !e.Concentrator.IsZero(); named != (e.Kind == driver.Registration) {
		s.t.Fatalf("event %s names concentrator %q", describe([]driver.Event{e}), e.Concentrator)
	}
}

func describe(events []driver.Event) string {
	names := map[driver.Kind]string{
		driver.Noise: "noise", driver.Registration: "registration", driver.Heartbeat: "heartbeat", driver.Frame: "frame",
	}
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s %X", names[e.Kind], e.Raw))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
