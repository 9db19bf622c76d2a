package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// serves sends and answers until nothing waits, and expects the meters to be asked in this order.
func (w *wire) serves(want ...string) {
	w.t.Helper()
	var got []string
	for {
		asked, ok := w.exchange()
		if !ok {
			break
		}
		got = append(got, asked)
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("asked %v, want %v", got, want)
	}
}

// exchange sends the frame whose turn it is, answers it at once and lets the gap pass.
func (w *wire) exchange() (asked string, ok bool) {
	w.t.Helper()
	frame, ok := w.bus.Start(w.now)
	if !ok {
		return "", false
	}
	w.hears(string(frame)+" 1", Answered)
	w.later(w.bus.config.Gap)
	_, asked, _ = strings.Cut(string(frame), " ")
	return asked, true
}

func TestLanes(t *testing.T) {
	cases := []struct {
		name string
		ask  string // in this order; b before an address is the batch lane
		want string
	}{
		{"first come, first served", "3 1 2", "3 1 2"},
		{"so too in the batch lane", "b3 b1 b2", "3 1 2"},
		{"interactive first", "b90 b91 1 2", "1 2 90 91"},
		{"every fifth is batch while batch waits", "b90 b91 1 2 3 4 5 6 7 8 9", "1 2 3 4 90 5 6 7 8 91 9"},
		{"no turn is kept for a lane that is empty", "1 2 3 4 5 6", "1 2 3 4 5 6"},
		{"a click takes the batch exchange over, behind the clicks before it", "b90 b91 b92 1 91 2", "1 91 2 90 92"},
		{"a batch command joins a click's exchange where it is", "1 2 b2 b1", "1 2"},
		{"taking over does not use the other lane's turn up", "b90 1 2 3 4 90 5 b91", "1 2 3 4 91 90 5"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, 100)
			for i, address := range strings.Fields(c.ask) {
				if address, batch := strings.CutPrefix(address, "b"); batch {
					w.batch(fmt.Sprint(i), address, long)
				} else {
					w.ask(fmt.Sprint(i), address, long)
				}
			}
			w.serves(strings.Fields(c.want)...)
			for i := range strings.Fields(c.ask) {
				if told := w.got[fmt.Sprint(i)]; !strings.HasPrefix(told[len(told)-1], "done") {
					t.Errorf("command %d was told %q", i, told)
				}
			}
		})
	}
}

func TestBatchIsServedWhileTheClicksNeverEnd(t *testing.T) {
	w := newWire(t, 100)
	const batch = 8
	for i := range batch {
		w.batch(fmt.Sprint("batch", i), fmt.Sprint(1000+i), time.Minute)
	}
	var asked []string
	for i := range 5 * batch {
		w.ask(fmt.Sprint("click", 2*i), fmt.Sprint(2*i), time.Minute) // two clicks in the time of one exchange
		w.ask(fmt.Sprint("click", 2*i+1), fmt.Sprint(2*i+1), time.Minute)
		m, _ := w.exchange()
		asked = append(asked, m)
	}
	for i := range batch {
		if m := asked[5*i+4]; m != fmt.Sprint(1000+i) {
			t.Fatalf("exchange %d asked %s; all: %v", 5*i+5, m, asked)
		}
	}
}

func TestATurnOfTheBatchLaneCountsOnlyWhileBatchWaits(t *testing.T) {
	w := newWire(t, 100)
	for i := range 6 {
		w.ask(fmt.Sprint(i), fmt.Sprint(i), long)
	}
	for range 4 {
		w.exchange()
	}
	w.batch("b", "90", long)
	for i := range 5 {
		w.ask(fmt.Sprint("more", i), fmt.Sprint(10+i), long)
	}
	w.serves("4", "5", "10", "11", "90", "12", "13", "14")
}

func TestPositions(t *testing.T) {
	t.Run("tell who moved, and only them", func(t *testing.T) {
		w := newWire(t, 100)
		w.ask("a", "1", long)
		w.sends("1 1")
		w.batch("b", "90", long)
		w.ask("c", "2", long)
		w.batch("d", "91", long)
		w.told("b", "accepted", "queued 1", "queued 2")
		w.told("c", "accepted", "queued 1")
		w.told("d", "accepted", "queued 3")
	})
	t.Run("count the batch lane's turns in", func(t *testing.T) {
		w := newWire(t, 100)
		w.ask("a", "0", long)
		w.sends("1 0")
		w.batch("b", "90", long)
		for i := range 6 {
			w.ask(fmt.Sprint(i+1), fmt.Sprint(i+1), long)
		}
		w.told("b", "accepted", "queued 1", "queued 2", "queued 3", "queued 4", "queued 5")
		w.told("4", "accepted", "queued 4")
		w.told("5", "accepted", "queued 6")
	})
	t.Run("a click that takes a batch exchange over is told once, and so is who waited", func(t *testing.T) {
		w := newWire(t, 100)
		w.ask("a", "0", long)
		w.sends("1 0")
		w.batch("b", "90", long)
		w.batch("c", "91", long)
		w.ask("click", "91", long)
		w.told("click", "accepted", "queued 1")
		w.told("c", "accepted", "queued 2", "queued 1")
		w.told("b", "accepted", "queued 1", "queued 2")
	})
	t.Run("one that joins without moving anything is told too", func(t *testing.T) {
		w := newWire(t, 100)
		w.ask("a", "0", long)
		w.sends("1 0")
		w.ask("b", "1", long)
		w.ask("c", "1", long)
		w.told("b", "accepted", "queued 1")
		w.told("c", "accepted", "queued 1")
	})
}

func TestWaitIsEstimatedFromTheUsualTime(t *testing.T) {
	w := newWire(t, 100)
	waits := make(map[string][]int64)
	ask := func(id, address string) {
		c := w.command(id, address, long)
		c.Emit = func(a meter.Answer) {
			if a.Stage == meter.StageQueued {
				waits[id] = append(waits[id], a.WaitMS)
			}
		}
		w.bus.Submit(w.now, c)
	}
	expect := func(id string, want ...int64) {
		t.Helper()
		if !slices.Equal(waits[id], want) {
			t.Fatalf("%s was told to wait %v ms, want %v", id, waits[id], want)
		}
	}
	ask("a", "1")
	w.sends("1 1")
	ask("blind", "2")
	expect("blind", 0) // nothing was seen yet
	w.at(100)
	w.hears("1 1 1", Answered) // 100 ms are usual
	w.at(120)
	w.sends("2 2")
	w.at(150)
	ask("first", "3")
	ask("second", "4")
	expect("first", 90) // 70 ms to the answer, 20 ms gap
	expect("second", 90+120)
	w.at(300) // 80 ms longer than usual: any moment now
	ask("third", "5")
	expect("third", 240)
	w.hears("2 2 2", Answered) // 180 ms; usual are now 100 + 80/8
	w.at(320)
	w.sends("3 3")
	expect("second", 90+120, 110+20)
	expect("third", 240, 110+20+130)
}
