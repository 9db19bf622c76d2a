package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dianchao/dianchao/pkg/meter"
)

// arrival is bytes on their way to us.
type arrival struct {
	at    time.Time
	frame string
	noise bool
}

// Random schedules of clicks, jobs, withdrawals, faults, stalls and reconnects. Every one must end with one
// answer for each command, by its deadline and of its own exchange, and with a bus that wants nothing any more.
func TestSchedules(t *testing.T) {
	t.Run("serial numbers", rapid.MakeCheck(func(t *rapid.T) { newWorld(t, false).live() }))
	// Without serial numbers a reading is its own exchange's as long as a meter says at most one valid frame for
	// each time it was asked, in that order, and before twice the response timeout has passed after the timeout. So
	// this wire neither repeats a frame, nor reorders, nor speaks unasked, and we look at what has come before we
	// ask the next.
	t.Run("no serial numbers", rapid.MakeCheck(func(t *rapid.T) { newWorld(t, true).live() }))
}

func (w *world) live() {
	actions := map[string]func(*rapid.T){
		"":          func(*rapid.T) {}, // pump has compared all there is
		"ask":       w.ask,
		"crowd":     w.crowd,
		"cancel":    w.cancel,
		"next":      func(*rapid.T) { w.next() },
		"wait":      w.wait,
		"reconnect": w.reconnect,
		"babble":    w.babble,
	}
	if !w.bare {
		actions["stall"] = w.stall
	}
	w.Repeat(actions)
	for range 10_000 {
		if !w.next() {
			break
		}
	}
	if at, ok := w.bus.Wake(); ok || w.bus.Held() != 0 || len(w.arrivals) != 0 {
		w.Fatalf("at the end %d commands are held, and it wants to wake at %v (%v)", w.bus.Held(), at, ok)
	}
	for _, a := range w.askers {
		if a.answer == nil {
			w.Fatalf("%s got no answer", a.ID)
		}
	}
}

func drawMS(t *rapid.T, name string, least, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(least.Milliseconds(), max(least, most).Milliseconds()).Draw(t, name)) * time.Millisecond
}

func (w *world) someone(t *rapid.T, lanes ...meter.Lane) {
	timeout := drawMS(t, "timeout", 0, 10*time.Second)
	if rapid.Bool().Draw(t, "patient") {
		timeout = 2 * time.Minute
	}
	w.submit(w.newAsker(rapid.SampledFrom(meters).Draw(t, "meter"), rapid.SampledFrom(lanes).Draw(t, "lane"), timeout,
		rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, time.Minute}).Draw(t, "max age")))
}

func (w *world) ask(t *rapid.T) {
	w.someone(t, meter.LaneInteractive, meter.LaneBatch)
	w.pump()
}

// crowd comes all at once, before the link gets to send.
func (w *world) crowd(t *rapid.T) {
	for range rapid.IntRange(2, 8).Draw(t, "crowd") {
		w.someone(t, meter.LaneInteractive, meter.LaneInteractive, meter.LaneBatch)
	}
	w.pump()
}

func (w *world) cancel(t *rapid.T) {
	if len(w.askers) == 0 {
		t.SkipNow()
	}
	a := rapid.SampledFrom(w.askers).Draw(t, "who withdraws")
	held := a.held()
	w.doing = "cancel " + a.ID.String()
	if w.bus.Cancel(w.now, &a.Command) != held || a.held() {
		w.Fatalf("%s, held: %v, was not cancelled", a.ID, held)
	}
	w.leave()
	w.pump()
}

// next goes to when next something happens, and lets it. False: nothing will.
func (w *world) next() bool {
	at, ok := w.bus.Wake()
	if len(w.arrivals) > 0 && (!ok || !w.arrivals[0].at.After(at)) {
		at, ok = w.arrivals[0].at, true
	}
	if !ok {
		return false
	}
	w.now = at
	w.arrive()
	w.pump()
	return true
}

// arrive takes what has come by now.
func (w *world) arrive() {
	for len(w.arrivals) > 0 && !w.arrivals[0].at.After(w.now) {
		a := w.arrivals[0]
		w.arrivals = w.arrivals[1:]
		if a.noise {
			w.noise()
			w.bus.Stray([]byte(a.frame))
		} else {
			w.receive(a.frame)
		}
		w.pump()
	}
}

// wait lets time go by; everything happens when it should.
func (w *world) wait(t *rapid.T) {
	until := w.now.Add(drawMS(t, "wait", time.Millisecond, 90*time.Second))
	for {
		at, ok := w.bus.Wake()
		if len(w.arrivals) > 0 && (!ok || w.arrivals[0].at.Before(at)) {
			at, ok = w.arrivals[0].at, true
		}
		if !ok || at.After(until) {
			break
		}
		w.next()
	}
	w.now = until
	w.pump()
}

// stall is a program that gets no processor: what happened meanwhile is found all at once, frames or timer first.
func (w *world) stall(t *rapid.T) {
	w.now = w.now.Add(drawMS(t, "stall", time.Millisecond, 20*time.Second))
	switch rapid.IntRange(0, 2).Draw(t, "first") {
	case 0:
		w.pump()
	case 1:
		w.someone(t, meter.LaneInteractive, meter.LaneBatch)
	}
	w.arrive()
	w.pump()
}

// reconnect closes the bus and goes on with a new one, which gets what was not on the wire if it was there in time.
func (w *world) reconnect(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "link goes down") != 3 {
		return // most schedules are to get somewhere
	}
	var moved []*asker
	if rapid.Bool().Draw(t, "the newer link is there already") {
		moved = w.handover()
	}
	w.doing = "close"
	w.bus.Close(w.now, meter.Errorf(meter.CodeLinkLost, "gone"))
	if at, ok := w.bus.Wake(); ok || w.bus.Held() != 0 {
		w.Fatalf("the closed bus holds %d and wants to wake at %v (%v)", w.bus.Held(), at, ok)
	}
	w.reset()
	if w.bare || rapid.Bool().Draw(t, "what was under way is lost") {
		w.arrivals = nil
	}
	for _, a := range w.askers {
		if a.held() {
			w.Fatalf("%s is without an answer though its link is gone", a.ID)
		}
	}
	for _, a := range moved {
		w.submit(a)
	}
	w.pump()
}

// handover takes off the bus what is not on the wire.
func (w *world) handover() []*asker {
	w.doing = "handover"
	commands := w.bus.Unsent()
	moved := make([]*asker, len(commands))
	for _, a := range w.askers {
		i := slices.Index(commands, &a.Command)
		if (a.held() && a.on == nil) != (i >= 0) {
			w.Fatalf("%s, on the wire: %v, was handed over: %v", a.ID, a.on != nil, i >= 0)
		}
		if i >= 0 {
			a.accepted, moved[i] = false, a
		}
	}
	return moved
}

// babble is what comes without anybody having asked.
func (w *world) babble(t *rapid.T) {
	frame := "0 99 1" // a report of a meter that we never ask
	if !w.bare {
		frame = rapid.SampledFrom([]string{frame, "0 1 1", "1 2 1"}).Draw(t, "report")
	}
	w.expect(drawMS(t, "babble", 0, time.Second), arrival{frame: frame, noise: rapid.Bool().Draw(t, "noise")})
}

func (w *world) expect(in time.Duration, a arrival) {
	a.at = w.now.Add(in)
	if w.bare {
		a.at = w.notBefore(a)
	}
	w.arrivals = append(w.arrivals, a)
	slices.SortStableFunc(w.arrivals, func(a, b arrival) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
}

// notBefore is a's time, or later if what its meter said before is still under way.
func (w *world) notBefore(a arrival) time.Time {
	at := a.at
	for _, o := range w.arrivals {
		if !o.noise && !a.noise && strings.Fields(o.frame)[1] == strings.Fields(a.frame)[1] && o.at.After(at) {
			at = o.at
		}
	}
	return at
}

// respond draws what the meter and the wire make of a frame that went out.
func (w *world) respond(f *flight) {
	if w.dead[f.meter] {
		return
	}
	timeout := f.until.Sub(w.now)
	answer := arrival{frame: fmt.Sprintf("%d %s %d", f.serial, f.meter, f.serial)}
	faults := []string{"none", "none", "none", "late", "silence", "refusal", "corrupt", "garbage before"}
	if !w.bare {
		faults = append(faults, "duplicate", "another meter's", "another exchange's")
	}
	in := drawMS(w.T, "answer", 0, min(w.slow, timeout))
	switch rapid.SampledFrom(faults).Draw(w.T, "fault") {
	case "late":
		in = drawMS(w.T, "late", timeout, timeout+lateFactor*w.config.ResponseTimeout)
	case "silence":
		return
	case "refusal":
		answer.frame = fmt.Sprintf("%d %s !", f.serial, f.meter)
	case "corrupt":
		answer = arrival{frame: "\x16", noise: true}
	case "garbage before":
		w.expect(in, arrival{frame: "\x68", noise: true})
	case "duplicate":
		w.expect(in+drawMS(w.T, "apart", 0, 2*timeout), answer)
	case "another meter's":
		answer.frame = fmt.Sprintf("%d %s 1", f.serial, rapid.SampledFrom(meters).Filter(func(m string) bool { return m != f.meter }).Draw(w.T, "who answers"))
	case "another exchange's":
		answer.frame = fmt.Sprintf("%d %s 1", rapid.IntRange(f.serial-3, f.serial-1).Draw(w.T, "whose"), f.meter)
	}
	w.expect(in, answer)
}
