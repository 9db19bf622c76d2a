package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// The wire of these tests: a request is "serial meter", its answer "serial meter volume" or "serial meter !" for
// a refusal. Time is a number of milliseconds that the test sets.
type wire struct {
	t      *testing.T
	bus    *Bus
	now    time.Time
	serial int
	got    map[string][]string // command → what it was told
}

type exchange struct{ frame string }

func (e exchange) Frame() []byte { return []byte(e.frame) }

func (e exchange) Judge(frame []byte) driver.Verdict {
	rest, ok := strings.CutPrefix(string(frame), e.frame+" ")
	if !ok {
		return driver.Verdict{Foreign: "another exchange's"}
	}
	if rest == "!" {
		return driver.Verdict{Err: meter.Errorf(meter.CodeMeterRefused, "refused")}
	}
	v, err := meter.ParseDecimal(rest)
	if err != nil {
		return driver.Verdict{Err: meter.AsError(err)}
	}
	return driver.Verdict{Reading: &meter.Reading{Volume: &v}}
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newWire is a wire with a gap of 20 ms and a response timeout of a second.
func newWire(t *testing.T, queue int) *wire {
	return newWireOf(t, Config{Gap: 20 * time.Millisecond, ResponseTimeout: time.Second, Queue: queue})
}

func newWireOf(t *testing.T, c Config) *wire {
	w := &wire{t: t, now: start, got: make(map[string][]string)}
	if c.Request == nil {
		c.Request = func(_ meter.ConcentratorID, m meter.Address) driver.Exchange {
			w.serial++
			return exchange{fmt.Sprintf("%d %s", w.serial, m)}
		}
	}
	w.bus = New(c)
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var concentrator = must(meter.ParseConcentratorID("101"))

func (w *wire) command(id, address string, timeout time.Duration) *Command {
	a := must(meter.ParseAddress(address))
	return &Command{
		ID: must(meter.ParseCommandID(id)), Target: Target{concentrator, a}, Asked: a, Lane: meter.LaneInteractive,
		Arrived: w.now, Deadline: w.now.Add(timeout),
		Emit: func(a meter.Answer) { w.got[id] = append(w.got[id], tell(a)) },
	}
}

func tell(a meter.Answer) string {
	switch a.Stage {
	case meter.StageQueued:
		return fmt.Sprintf("queued %d", a.Position)
	case meter.StageDone:
		return fmt.Sprintf("done %s %s", a.Source, a.Reading.Volume)
	case meter.StageFailed:
		return "failed " + a.Error.Code.String()
	default:
		return a.Stage.String()
	}
}

func (w *wire) ask(id, address string, timeout time.Duration) *Command {
	c := w.command(id, address, timeout)
	w.bus.Submit(w.now, c)
	return c
}

// batch asks as a job that can wait.
func (w *wire) batch(id, address string, timeout time.Duration) *Command {
	c := w.command(id, address, timeout)
	c.Lane = meter.LaneBatch
	w.bus.Submit(w.now, c)
	return c
}

func (w *wire) at(ms int) {
	w.now = start
	w.later(time.Duration(ms) * time.Millisecond)
}

func (w *wire) later(d time.Duration) {
	w.now = w.now.Add(d)
	w.bus.Advance(w.now)
}

// sends expects this frame to go out now, or none for "".
func (w *wire) sends(want string) {
	w.t.Helper()
	frame, _ := w.bus.Start(w.now)
	if string(frame) != want {
		w.t.Fatalf("sent %q, want %q", frame, want)
	}
}

func (w *wire) hears(frame string, want Receipt) {
	w.t.Helper()
	if got, _ := w.bus.Receive(w.now, []byte(frame)); got != want {
		w.t.Fatalf("%q was taken as %d, want %d", frame, got, want)
	}
}

func (w *wire) told(id string, want ...string) {
	w.t.Helper()
	if !slices.Equal(w.got[id], want) {
		w.t.Fatalf("%s was told %q, want %q", id, w.got[id], want)
	}
}

func (w *wire) wakes(ms int) {
	w.t.Helper()
	at, ok := w.bus.Wake()
	if got := at.Sub(start).Milliseconds(); !ok || got != int64(ms) {
		w.t.Fatalf("wakes at %d (%v), want %d", got, ok, ms)
	}
}

const long = 15 * time.Second

func TestOneExchangeAtATimeInTheOrderOfArrivalWithTheGapBetween(t *testing.T) {
	w := newWire(t, 10)
	w.ask("a", "1", long)
	w.sends("1 1")
	w.ask("b", "2", long)
	w.ask("c", "3", long)
	w.sends("")
	w.at(100)
	w.hears("1 1 10.5", Answered)
	w.sends("")
	w.wakes(120)
	w.at(120)
	w.sends("2 2")
	w.hears("2 2 20", Answered)
	w.at(140)
	w.sends("3 3")
	w.hears("3 3 30", Answered)
	w.told("a", "accepted", "sent", "done wire 10.5")
	w.told("b", "accepted", "queued 1", "sent", "done wire 20")
	w.told("c", "accepted", "queued 2", "queued 1", "sent", "done wire 30")
	if _, ok := w.bus.Wake(); ok || w.bus.Held() != 0 {
		t.Fatalf("an idle bus wants to wake, or holds %d", w.bus.Held())
	}
}

func TestTenClicksOnOneMeterAreOneExchangeAndTenAnswers(t *testing.T) {
	w := newWire(t, 10)
	for i := range 5 {
		w.ask(fmt.Sprint("queued", i), "1", long)
	}
	w.sends("1 1")
	for i := range 5 {
		w.ask(fmt.Sprint("flying", i), "1", long)
	}
	w.hears("1 1 7.00", Answered)
	w.at(1000)
	w.sends("")
	w.told("queued0", "accepted", "sent", "done wire 7.00")
	w.told("queued1", "accepted", "sent", "done shared 7.00")
	w.told("flying4", "accepted", "sent", "done shared 7.00")
}

func TestDeadlines(t *testing.T) {
	t.Run("passed on arrival", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", 0)
		w.sends("")
		w.told("a", "failed expired")
	})
	t.Run("passed in the queue: nothing is sent", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.ask("b", "2", 500*time.Millisecond)
		w.wakes(500)
		w.at(500)
		w.told("b", "accepted", "queued 1", "failed expired")
		w.at(1000)
		w.at(1020)
		w.sends("")
	})
	t.Run("passed in the queue, and the turn came before anybody looked", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", 500*time.Millisecond)
		w.now = w.now.Add(500 * time.Millisecond)
		w.sends("")
		w.told("a", "accepted", "failed expired")
	})
	t.Run("one waiter's passes, the other's exchange is sent", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.ask("short", "2", 500*time.Millisecond)
		w.ask("long", "2", long)
		w.at(500)
		w.hears("1 1 1", Answered)
		w.at(520)
		w.sends("2 2")
		w.hears("2 2 2", Answered)
		w.told("short", "accepted", "queued 1", "failed expired")
		w.told("long", "accepted", "queued 1", "sent", "done wire 2")
	})
	t.Run("passed on the wire: the bus stays taken until the timeout", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", 300*time.Millisecond)
		w.sends("1 1")
		w.ask("b", "2", long)
		w.at(300)
		w.told("a", "accepted", "sent", "failed meter_silent")
		w.sends("")
		w.wakes(1000)
		w.at(1000)
		w.sends("")
		w.at(1020)
		w.sends("2 2")
	})
}

func TestSilenceAndLateAnswers(t *testing.T) {
	w := newWire(t, 10)
	w.ask("a", "1", long)
	w.sends("1 1")
	w.ask("b", "1", 999*time.Millisecond)
	w.at(1000)
	w.told("a", "accepted", "sent", "failed meter_silent")
	w.told("b", "accepted", "sent", "failed meter_silent")
	w.ask("c", "1", long)
	w.at(1020)
	w.sends("2 1")
	w.hears("1 1 666", Late)
	w.hears("1 1 666", Foreign) // it cannot come twice
	w.hears("2 1 42", Answered)
	w.told("c", "accepted", "queued 1", "sent", "done wire 42")
	if w.bus.Counts().Late != 1 {
		t.Fatalf("%d late answers counted", w.bus.Counts().Late)
	}
}

func TestBytesThatAreNoAnswerAreShown(t *testing.T) {
	w := newWire(t, 10)
	var frames *meter.Frames
	c := w.command("a", "1", long)
	emit := c.Emit
	c.Emit = func(a meter.Answer) { frames = a.Frames; emit(a) }
	w.bus.Submit(w.now, c)
	w.sends("1 1")
	w.bus.Stray([]byte("??"))
	w.hears("9 9 9", Foreign)
	w.at(1000)
	w.told("a", "accepted", "sent", "failed bad_answer")
	if string(frames.Received) != "??9 9 9" || string(frames.Sent) != "1 1" {
		t.Fatalf("frames %q %q", frames.Sent, frames.Received)
	}
}

func TestOnlySoManyBytesThatAreNoAnswerAreKept(t *testing.T) {
	w := newWire(t, 10)
	var kept int
	c := w.command("a", "1", long)
	c.Emit = func(a meter.Answer) {
		if a.Frames != nil {
			kept = len(a.Frames.Received)
		}
	}
	w.bus.Submit(w.now, c)
	w.sends("1 1")
	for range 100 {
		w.bus.Stray([]byte("0123456789"))
	}
	w.at(1000)
	if kept != maxStray {
		t.Fatalf("%d bytes were kept", kept)
	}
}

func TestARefusalIsAnAnswer(t *testing.T) {
	w := newWire(t, 10)
	w.ask("a", "1", long)
	w.sends("1 1")
	w.hears("1 1 !", Answered)
	w.told("a", "accepted", "sent", "failed meter_refused")
}

func TestOneCommandTooManyIsBusy(t *testing.T) {
	w := newWire(t, 3)
	for i := range 4 {
		w.ask(fmt.Sprint(i), fmt.Sprint(i), long)
	}
	w.told("3", "failed busy")
	w.sends("1 0")
	w.hears("1 0 1", Answered)
	w.ask("4", "4", long)
	w.told("4", "accepted", "queued 3")
}

func TestCancel(t *testing.T) {
	w := newWire(t, 10)
	a, b, c := w.ask("a", "1", long), w.ask("b", "2", long), w.ask("c", "3", long)
	w.sends("1 1")
	if !w.bus.Cancel(w.now, b) || w.bus.Cancel(w.now, b) {
		t.Fatal("a command is cancelled once")
	}
	w.told("b", "accepted", "queued 2", "queued 1", "failed cancelled")
	w.told("c", "accepted", "queued 3", "queued 2", "queued 1")
	w.bus.Cancel(w.now, a)
	w.hears("1 1 5", Answered) // on the wire already: it is finished, for nobody
	w.told("a", "accepted", "sent", "failed cancelled")
	w.bus.Cancel(w.now, c)
	w.at(1000)
	w.sends("")
}

func TestRecentReadings(t *testing.T) {
	w := newWire(t, 10)
	w.ask("a", "1", long)
	w.sends("1 1")
	w.hears("1 1 5", Answered)
	w.at(60_000)
	fresh, stale := w.command("fresh", "1", long), w.command("stale", "1", long)
	fresh.MaxAge, stale.MaxAge = time.Minute, 59*time.Second
	w.bus.Submit(w.now, fresh)
	w.bus.Submit(w.now, stale)
	w.told("fresh", "done recent 5")
	w.told("stale", "accepted")
}

func TestOnlySoManyRecentReadingsAreKept(t *testing.T) {
	w := newWire(t, 10)
	for i := range maxRecent + 1 {
		w.at(i * 100)
		w.ask("a", fmt.Sprint(i), long)
		w.sends(fmt.Sprintf("%d %d", i+1, i))
		w.hears(fmt.Sprintf("%d %d 1", i+1, i), Answered)
	}
	if _, ok := w.bus.recent.readings[Target{concentrator, must(meter.ParseAddress("0"))}]; ok || len(w.bus.recent.readings) != maxRecent {
		t.Fatalf("%d are kept, the oldest too: %v", len(w.bus.recent.readings), ok)
	}
}

func TestCloseFailsAll(t *testing.T) {
	w := newWire(t, 10)
	w.ask("a", "1", long)
	w.ask("b", "2", long)
	w.sends("1 1")
	w.bus.Close(w.now, meter.Errorf(meter.CodeLinkLost, "gone"))
	w.told("a", "accepted", "sent", "failed link_lost")
	w.told("b", "accepted", "queued 2", "queued 1", "failed link_lost")
}
