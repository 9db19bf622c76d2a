package scheduler

import (
	"fmt"
	"testing"
	"time"
)

// silence lets the exchange whose turn it is time out.
func (w *wire) silence() {
	w.t.Helper()
	if _, ok := w.bus.Start(w.now); !ok {
		w.t.Fatal("nothing was sent")
	}
	at, _ := w.bus.Wake()
	w.later(at.Sub(w.now))
}

// refuses expects a batch command for this meter to be skipped, or not.
func (w *wire) refuses(id, address string, want bool) {
	w.t.Helper()
	before := w.bus.Counts().Skipped
	w.batch(id, address, time.Hour)
	refused := w.bus.Counts().Skipped > before
	if refused != want {
		w.t.Fatalf("%s was told %q %v after the start", id, w.got[id], w.now.Sub(start))
	}
	if refused {
		w.told(id, "failed meter_silent")
	}
}

func TestTheBatchLaneSkipsASilentMeter(t *testing.T) {
	t.Run("for a minute, doubling with every silence, at most half an hour", func(t *testing.T) {
		w := newWire(t, 10)
		w.batch("0", "1", long)
		for i, skip := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			w.silence()
			w.refuses(fmt.Sprint("early", i), "1", true)
			w.later(skip*time.Minute - time.Millisecond)
			w.refuses(fmt.Sprint("late", i), "1", true)
			w.later(time.Millisecond)
			w.refuses(fmt.Sprint("again", i), "1", false)
		}
	})
	t.Run("and no other meter", func(t *testing.T) {
		w := newWire(t, 10)
		w.batch("a", "1", long)
		w.silence()
		w.refuses("b", "2", false)
	})
	t.Run("after a click's silence too", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", long)
		w.silence()
		w.refuses("b", "1", true)
	})
	t.Run("a click asks it, and its answer ends the skipping", func(t *testing.T) {
		for _, answer := range []string{"10", "!"} {
			w := newWire(t, 10)
			w.batch("a", "1", long)
			w.silence()
			w.ask("click", "1", long)
			w.later(w.bus.config.Gap)
			w.refuses("b", "1", true)
			w.sends("2 1")
			w.hears("2 1 "+answer, Answered)
			w.refuses("c", "1", false)
		}
	})
	t.Run("a click's silence goes on with the doubling", func(t *testing.T) {
		w := newWire(t, 10)
		w.batch("a", "1", long)
		w.silence()
		w.ask("click", "1", long)
		w.later(w.bus.config.Gap)
		w.silence()
		w.later(2*time.Minute - time.Millisecond)
		w.refuses("b", "1", true)
		w.later(time.Millisecond)
		w.refuses("c", "1", false)
	})
	t.Run("an answer starts the doubling anew", func(t *testing.T) {
		w := newWire(t, 10)
		w.ask("a", "1", long)
		w.silence()
		w.later(time.Hour)
		w.ask("b", "1", long)
		w.exchange()
		w.ask("c", "1", long)
		w.silence()
		w.later(time.Minute)
		w.refuses("d", "1", false)
	})
	t.Run("a late answer ends it", func(t *testing.T) {
		w := newWire(t, 10)
		w.batch("a", "1", long)
		w.silence()
		w.later(2 * time.Second)
		w.hears("1 1 66", Late)
		w.refuses("b", "1", false)
	})
	t.Run("noise is not silence", func(t *testing.T) {
		w := newWire(t, 10)
		w.batch("a", "1", long)
		w.sends("1 1")
		w.bus.Stray([]byte("?"))
		w.at(1000)
		w.told("a", "accepted", "sent", "failed bad_answer")
		w.refuses("b", "1", false)
	})
}

func TestOnlySoManyMuteMetersAreRemembered(t *testing.T) {
	w := newWire(t, 10)
	for i := range maxMute + 1 {
		w.ask(fmt.Sprint(i), fmt.Sprint(i), long)
		w.later(w.bus.config.Gap)
		w.silence()
	}
	last := fmt.Sprint(maxMute)
	w.refuses("last", last, false)
	if len(w.bus.mute) != maxMute {
		t.Fatalf("%d are remembered", len(w.bus.mute))
	}
}

// The bus of these cases waits ten seconds for an answer, unless it has learnt better.
func TestBatchPatience(t *testing.T) {
	const ms = time.Millisecond
	cases := []struct {
		name    string
		answers []time.Duration // that came before
		want    time.Duration
	}{
		{"the whole timeout while nothing was seen", nil, 10 * time.Second},
		{"the whole timeout after seven answers", repeat(7, 200*ms), 10 * time.Second},
		{"four times the slowest after eight", append(repeat(7, 200*ms), 300*ms), 1200 * ms},
		{"never less than half a second", repeat(8, 10*ms), 500 * ms},
		{"never more than the timeout", repeat(8, 4*time.Second), 10 * time.Second},
		{"the slowest of 32 counts", append([]time.Duration{2 * time.Second}, repeat(31, 200*ms)...), 8 * time.Second},
		{"the 33rd last does not", append([]time.Duration{2 * time.Second}, repeat(32, 200*ms)...), 800 * ms},
		{"nor those before it", append(repeat(32, 2*time.Second), repeat(32, 200*ms)...), 800 * ms},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWireOf(t, Config{Gap: 20 * ms, ResponseTimeout: 10 * time.Second, Queue: 100})
			for i, d := range c.answers {
				w.ask("a", fmt.Sprint(i), long)
				frame, _ := w.bus.Start(w.now)
				w.later(d)
				w.hears(string(frame)+" 1", Answered)
				w.later(w.bus.config.Gap)
			}
			sent := w.now
			w.batch("b", "90", time.Minute)
			w.silence()
			if got := w.now.Sub(sent); got != c.want {
				t.Errorf("a batch exchange waited %v, want %v", got, c.want)
			}
			w.later(w.bus.config.Gap)
			sent = w.now
			w.ask("click", "91", time.Minute)
			w.silence()
			if got := w.now.Sub(sent); got != 10*time.Second {
				t.Errorf("a click waited %v", got)
			}
		})
	}
}

func repeat(n int, d time.Duration) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = d
	}
	return all
}

// quick is a bus that has learnt to wait half a second for the batch lane, out of ten.
func quick(t *testing.T) *wire {
	w := newWireOf(t, Config{Gap: 20 * time.Millisecond, ResponseTimeout: 10 * time.Second, Queue: 100})
	for i := range paceTrust {
		w.ask("known", fmt.Sprint(i), long)
		w.exchange()
	}
	w.serial = 0
	return w
}

func TestALateAnswerTeachesPatience(t *testing.T) {
	w := quick(t)
	w.batch("a", "90", time.Minute)
	w.silence()
	w.later(time.Second)
	w.hears("1 90 66", Late) // after 1.5 s in all
	w.refuses("b", "90", false)
	sent := w.now
	w.silence()
	if got := w.now.Sub(sent); got != 6*time.Second {
		t.Fatalf("the next batch exchange waited %v", got)
	}
}

func TestAClickThatJoinsABatchExchangeOnTheWireGetsItsWholeTimeout(t *testing.T) {
	w := quick(t)
	w.batch("a", "90", time.Minute)
	w.sends("1 90")
	w.later(400 * time.Millisecond)
	w.ask("click", "90", time.Minute)
	w.later(9 * time.Second)
	w.hears("1 90 10", Answered)
	w.told("a", "accepted", "sent", "done wire 10")
	w.told("click", "accepted", "sent", "done shared 10")
}
