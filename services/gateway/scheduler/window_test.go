package scheduler

import (
	"testing"
	"time"
)

func newWindow(t *testing.T, n int) *wire {
	return newWireOf(t, Config{Gap: 20 * time.Millisecond, ResponseTimeout: time.Second, Queue: 100, Window: n})
}

func TestAWindowOfExchanges(t *testing.T) {
	t.Run("is filled with the gap between frames, then waits", func(t *testing.T) {
		w := newWindow(t, 2)
		w.ask("a", "1", long)
		w.ask("b", "2", long)
		w.ask("c", "3", long)
		w.sends("1 1")
		w.sends("")
		w.wakes(20)
		w.at(20)
		w.sends("2 2")
		w.at(40)
		w.sends("")
		w.wakes(1000)
		w.at(500)
		w.hears("2 2 2", Answered)
		w.sends("")
		w.wakes(520)
		w.at(520)
		w.sends("3 3")
	})
	t.Run("each answer goes to its own exchange, in any order", func(t *testing.T) {
		w := newWindow(t, 3)
		for i, m := range []string{"1", "2", "3"} {
			w.at(20 * i)
			w.ask(m, m, long)
			w.sends(m + " " + m)
		}
		w.hears("3 3 30", Answered)
		w.hears("1 1 10", Answered)
		w.hears("2 1 66", Foreign) // the right serial, another meter
		w.hears("2 2 20", Answered)
		w.told("1", "accepted", "sent", "done wire 10")
		w.told("2", "accepted", "sent", "done wire 20")
		w.told("3", "accepted", "sent", "done wire 30")
	})
	t.Run("the same meter is never on the wire twice", func(t *testing.T) {
		w := newWindow(t, 3)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.at(20)
		w.ask("b", "1", long)
		w.batch("c", "1", long)
		w.sends("")
		w.hears("1 1 10", Answered)
		w.told("b", "accepted", "sent", "done shared 10")
		w.told("c", "accepted", "sent", "done shared 10")
	})
	t.Run("one that times out leaves the others alone", func(t *testing.T) {
		w := newWindow(t, 2)
		w.ask("a", "1", long)
		w.ask("b", "2", long)
		w.ask("c", "3", long)
		w.sends("1 1")
		w.at(300)
		w.sends("2 2")
		w.at(1000)
		w.told("a", "accepted", "sent", "failed meter_silent")
		w.at(1020)
		w.sends("3 3")
		w.hears("1 1 66", Late)
		w.hears("2 2 20", Answered)
		w.hears("3 3 30", Answered)
		w.told("b", "accepted", "queued 2", "queued 1", "sent", "done wire 20")
		w.told("c", "accepted", "queued 3", "queued 2", "queued 1", "sent", "done wire 30")
	})
	t.Run("bytes that answer nothing are shown to all of them", func(t *testing.T) {
		w := newWindow(t, 2)
		w.ask("a", "1", long)
		w.ask("b", "2", long)
		w.sends("1 1")
		w.at(20)
		w.sends("2 2")
		w.bus.Stray([]byte("?"))
		w.at(1020)
		w.told("a", "accepted", "sent", "failed bad_answer")
		w.told("b", "accepted", "queued 2", "queued 1", "sent", "failed bad_answer")
	})
}
