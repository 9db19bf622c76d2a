package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// bareExchange is of a protocol without serial numbers: whatever its meter says is its answer.
type bareExchange struct{ frame string }

func (e bareExchange) Frame() []byte { return []byte(e.frame) }

func (e bareExchange) Judge(frame []byte) driver.Verdict {
	_, asked, _ := strings.Cut(e.frame, " ")
	_, said, _ := strings.Cut(string(frame), " ")
	if !strings.HasPrefix(said, asked+" ") {
		return driver.Verdict{Foreign: "another meter's"}
	}
	return exchange{frame: said[:len(asked)]}.Judge([]byte(said))
}

func newBareWire(t *testing.T, responseTimeout time.Duration) *wire {
	serial := 0
	return newWireOf(t, Config{
		Gap: 20 * time.Millisecond, ResponseTimeout: responseTimeout, Queue: 100,
		Request: func(_ meter.ConcentratorID, m meter.Address) driver.Exchange {
			serial++
			return bareExchange{fmt.Sprintf("%d %s", serial, m)}
		},
	})
}

func TestWithoutSerialNumbersALateAnswerIsNeverTheNextOnes(t *testing.T) {
	t.Run("while the same meter is asked again", func(t *testing.T) {
		w := newBareWire(t, time.Second)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.at(1000)
		w.ask("b", "1", long)
		w.at(1020)
		w.sends("2 1")
		w.hears("1 1 66", Late)
		w.hears("2 1 10", Answered)
		w.told("b", "accepted", "queued 1", "sent", "done wire 10")
	})
	t.Run("two outstanding ones take two", func(t *testing.T) {
		w := newBareWire(t, time.Second)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.at(1000)
		w.ask("b", "1", long)
		w.at(1020)
		w.sends("2 1")
		w.at(2020)
		w.ask("c", "1", long)
		w.at(2040)
		w.sends("3 1")
		w.hears("1 1 66", Late)
		w.hears("2 1 67", Late)
		w.hears("3 1 10", Answered)
		w.told("c", "accepted", "queued 1", "sent", "done wire 10")
	})
	t.Run("another meter's answer stays its own", func(t *testing.T) {
		w := newBareWire(t, time.Second)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.at(1000)
		w.ask("b", "2", long)
		w.at(1020)
		w.sends("2 2")
		w.hears("2 2 20", Answered)
	})
	// The price: whether this is the first question's answer or the second's, nobody can tell.
	t.Run("until twice the response timeout has passed, every answer is taken for it", func(t *testing.T) {
		for _, c := range []struct {
			ms   int
			want Receipt
		}{{3000, Late}, {3001, Answered}} {
			w := newBareWire(t, time.Second)
			w.ask("a", "1", long)
			w.sends("1 1")
			w.at(1000)
			w.at(2900)
			w.ask("b", "1", long)
			w.sends("2 1")
			w.at(c.ms)
			w.hears("2 1 10", c.want)
		}
	})
	t.Run("and when nobody can tell which was which, the meter is left alone for as long", func(t *testing.T) {
		w := newBareWire(t, time.Second)
		w.ask("lost", "1", long)
		w.sends("1 1")
		w.at(1000)
		w.ask("eaten", "1", long)
		w.at(1020)
		w.sends("2 1")
		w.hears("2 1 10", Late)
		w.at(2020)
		w.told("eaten", "accepted", "queued 1", "sent", "failed meter_silent")
		w.at(4020)
		w.ask("early", "1", long)
		w.told("early", "failed meter_silent")
		w.at(4021)
		w.ask("again", "1", long)
		w.sends("3 1")
		w.hears("3 1 11", Answered)
		w.told("again", "accepted", "sent", "done wire 11")
	})
	// A night's job over dead meters at half a second each, on a link that may take fifteen seconds to answer.
	t.Run("however many exchanges timed out since", func(t *testing.T) {
		w := newBareWire(t, 15*time.Second)
		for i := range paceTrust {
			w.ask("known", fmt.Sprint(i), long)
			w.exchange()
		}
		w.batch("a", "90", time.Minute)
		w.silence()
		for i := range 50 {
			w.later(w.bus.config.Gap)
			w.batch("dead", fmt.Sprint(100+i), time.Minute)
			w.silence()
		}
		w.later(w.bus.config.Gap)
		w.ask("click", "90", time.Minute)
		w.bus.Start(w.now)
		w.hears("9 90 66", Late)
		w.hears("60 90 10", Answered)
		w.told("click", "accepted", "sent", "done wire 10")
	})
}

func TestOnlySoManyLateAnswersAreAwaited(t *testing.T) {
	w := newWireOf(t, Config{ResponseTimeout: time.Second, Queue: 2 * maxSilent, Window: 2 * maxSilent})
	for i := range maxSilent + 1 {
		w.ask("a", fmt.Sprint(i), long)
		w.bus.Start(w.now)
	}
	w.at(1000)
	w.hears("2 1 66", Late)
	w.hears("1 0 66", Foreign) // the oldest is forgotten
}

func TestAwaitedLateAnswersAreForgottenInTime(t *testing.T) {
	w := newWire(t, 10)
	for i := range 200 {
		w.ask("a", fmt.Sprint(i), long)
		w.later(w.bus.config.Gap)
		w.silence()
	}
	if n := len(w.bus.silent); n > 3 { // those of the last two seconds, at a little over a second each
		t.Fatalf("%d are awaited though nothing ever came", n)
	}
}
