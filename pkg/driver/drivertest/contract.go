package drivertest

import (
	"bytes"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

func testTraits(t *testing.T, c Case) {
	if err := c.Driver.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
	traits := c.Driver.Traits()
	if c.Driver.Name() == "" || !traits.Listens && !traits.Dials {
		t.Errorf("driver %q with traits %+v can have no links", c.Driver.Name(), traits)
	}
	if traits.ResponseTimeout <= 0 || traits.Quiet < 0 || traits.MaxFrame <= 0 {
		t.Errorf("traits %+v", traits)
	}
	if traits.Listens && len(c.Registrations) == 0 {
		t.Errorf("concentrators dial in, and the case has no registration that would name them")
	}
	if len(c.Noise) == 0 {
		t.Errorf("the case has no noise")
	}
}

func testCanonical(t *testing.T, c Case) {
	s := newSetup(t, c)
	for i := range c.Meters {
		once := s.address(i)
		twice, err := c.Driver.Canonical(once)
		if err != nil || twice != once {
			t.Errorf("Canonical(%s) = %s, %v", once, twice, err)
		}
	}
	if s.address(0) == s.address(1) {
		t.Errorf("%s and %s are the same meter", c.Meters[0], c.Meters[1])
	}
	var none meter.Address
	if _, err := c.Driver.Canonical(none); err == nil || meter.AsError(err).Code != meter.CodeBadCommand {
		t.Errorf("Canonical of no address: %v, want bad_command", err)
	}
}

func testPieces(t *testing.T, c Case) {
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	s.answered(s.all(answer), x, someVolume)
	s.answered(s.all(single(answer)...), x, someVolume)
	for at := 1; at < len(answer); at++ {
		s.answered(s.all(cut(answer, at)...), x, someVolume)
	}
	// Without a silence at the end: a whole answer must not wait for one.
	s.answered(s.receive(answer), x, someVolume)
}

func testGlued(t *testing.T, c Case) {
	s := newSetup(t, c)
	first, second := s.ask(0), s.ask(1)
	a, b := c.Answer(first.Frame(), someVolume), c.Answer(second.Frame(), otherVolume)
	both := join(a, b)
	for at := range both {
		frames := framesIn(s.all(cut(both, at)...))
		if len(frames) != 2 {
			t.Fatalf("cut at %d: %d frames, want 2", at, len(frames))
		}
		s.wantReading(first.Judge(frames[0]), someVolume)
		s.wantReading(second.Judge(frames[1]), otherVolume)
	}
}

func testNoise(t *testing.T, c Case) {
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	for _, noise := range c.Noise {
		n := []byte(noise)
		for _, sent := range [][]byte{join(n, answer), join(answer, n), join(n, answer, n)} {
			s.answered(s.all(sent), x, someVolume)
			s.answered(s.all(single(sent)...), x, someVolume)
		}
		if events := s.all(n); kindsIn(events, driver.Noise) != len(events) {
			t.Errorf("noise %q is %s", noise, describe(events))
		}
	}
}

func testCorrupt(t *testing.T, c Case) {
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	corrupt := c.Corrupt(bytes.Clone(answer))
	for _, frame := range framesIn(s.all(corrupt)) {
		if v := x.Judge(frame); v.Reading != nil {
			t.Errorf("% X is taken for a reading", corrupt)
		}
	}
	events := append(s.receive(corrupt), s.all(answer)...)
	frames := framesIn(events)
	if len(frames) == 0 {
		t.Fatalf("the answer behind a corrupt one is lost: %s", describe(events))
	}
	s.wantReading(x.Judge(frames[len(frames)-1]), someVolume)
}

func testTruncated(t *testing.T, c Case) {
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	for at := 1; at < len(answer); at++ {
		if frames := framesIn(s.all(answer[:at])); len(frames) > 0 {
			t.Fatalf("%d of %d bytes are taken for a frame", at, len(answer))
		}
		s.answered(s.all(answer), x, someVolume)
	}
}

func testOtherMeter(t *testing.T, c Case) {
	s := newSetup(t, c)
	x, other := s.ask(0), s.ask(1)
	s.wantForeign(x.Judge(framesIn(s.all(c.Answer(other.Frame(), otherVolume)))[0]))
	s.wantReading(x.Judge(framesIn(s.all(c.Answer(x.Frame(), someVolume)))[0]), someVolume)
}

func testTwoLinks(t *testing.T, c Case) {
	one, two := newSetup(t, c), newSetup(t, c)
	x, y := one.ask(0), two.ask(1)
	a, b := c.Answer(x.Frame(), someVolume), c.Answer(y.Frame(), otherVolume)
	half := len(a) / 2
	one.receive(a[:half])
	two.answered(two.all(b), y, otherVolume)
	one.answered(one.all(a[half:]), x, someVolume)
}

func testLate(t *testing.T, c Case) {
	s := newSetup(t, c)
	early, later := s.ask(0), s.ask(1)
	late := framesIn(s.all(c.Answer(early.Frame(), someVolume)))[0]
	s.wantForeign(later.Judge(late))
	s.wantReading(early.Judge(late), someVolume)
	if !c.Serials {
		return
	}
	again := s.ask(0)
	if bytes.Equal(early.Frame(), again.Frame()) {
		t.Errorf("two requests to one meter are the same bytes % X", early.Frame())
	}
	s.wantForeign(again.Judge(late))
	s.wantReading(early.Judge(late), someVolume)
}

func testRefusal(t *testing.T, c Case) {
	if c.Refuse == nil {
		return
	}
	s := newSetup(t, c)
	x, other := s.ask(0), s.ask(1)
	frame := framesIn(s.all(c.Refuse(x.Frame())))[0]
	v := x.Judge(frame)
	if !v.Answers() || v.Reading != nil || v.Err == nil || v.Err.Code != meter.CodeMeterRefused {
		t.Errorf("verdict %+v, want meter_refused", v)
	}
	s.wantForeign(other.Judge(frame))
}

func testHeartbeats(t *testing.T, c Case) {
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	for _, h := range c.Heartbeats {
		beat := []byte(h)
		if events := s.all(beat, beat); kindsIn(events, driver.Heartbeat) != len(events) || len(events) != 2 {
			t.Errorf("two heartbeats are %s", describe(events))
		}
		for at := range len(answer) + 1 {
			sent := join(answer[:at], beat, answer[at:])
			s.answered(s.all(sent), x, someVolume)
			s.answered(s.all(single(sent)...), x, someVolume)
			s.answered(s.all(cut(sent, at+len(beat)/2)...), x, someVolume)
		}
	}
}

func testRegistrations(t *testing.T, c Case) {
	if !c.Driver.Traits().Listens {
		return
	}
	s := newSetup(t, c)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	for _, r := range c.Registrations {
		packet := []byte(r)
		for at := range packet {
			s.registered(s.all(cut(packet, at)...), 1)
		}
		s.registered(s.all(single(packet)...), 1)
		for _, sent := range [][]byte{join(packet, answer), join(answer, packet)} {
			for _, pieces := range [][][]byte{{sent}, single(sent)} {
				events := s.all(pieces...)
				s.registered(events, 1)
				s.answered(events, x, someVolume)
			}
		}
		for _, h := range c.Heartbeats {
			events := s.all(join([]byte(h), packet, []byte(h)))
			s.registered(events, 1)
			if kindsIn(events, driver.Heartbeat) != 2 {
				t.Errorf("a registration between heartbeats is %s", describe(events))
			}
		}
		s.registered(s.all(join(packet, answer, packet, answer)), 2)
	}
}

// registered fails unless the case's concentrator named itself so many times.
func (s *setup) registered(events []driver.Event, times int) {
	s.Helper()
	if n := kindsIn(events, driver.Registration); n != times {
		s.Fatalf("%d registrations, want %d: %s", n, times, describe(events))
	}
	for _, e := range events {
		if e.Kind == driver.Registration && e.Concentrator != s.concentrator {
			s.Fatalf("concentrator %s registered, want %s", e.Concentrator, s.concentrator)
		}
	}
}

func testDialed(t *testing.T, c Case) {
	if !c.Driver.Traits().Dials {
		return
	}
	s := newSetup(t, c)
	s.stream = newStream(t, c.Driver, true)
	x := s.ask(0)
	answer := c.Answer(x.Frame(), someVolume)
	s.answered(s.all(answer), x, someVolume)
	for _, r := range c.Registrations {
		events := s.all(join([]byte(r), answer))
		s.registered(events, 0)
		s.answered(events, x, someVolume)
	}
}
