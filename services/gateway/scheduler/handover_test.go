package scheduler

import (
	"slices"
	"testing"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestWhatIsNotOnTheWireIsHandedOver(t *testing.T) {
	w, newer := newWire(t, 100), newWire(t, 100)
	newer.got = w.got
	w.ask("flying", "1", long)
	w.sends("1 1")
	w.ask("boarded", "1", long)
	batch, click, joined := w.batch("batch", "2", long), w.ask("click", "3", long), w.ask("joined", "3", long)

	moved := w.bus.Unsent()
	if want := []*Command{click, joined, batch}; !slices.Equal(moved, want) {
		t.Fatalf("%d commands were handed over, want those that wait, in the order of their turn", len(moved))
	}
	w.told("joined", "accepted", "queued 1") // and not a word more
	if w.bus.Held() != 2 || w.bus.Cancel(w.now, click) {
		t.Fatalf("the old bus holds %d, or what was handed over", w.bus.Held())
	}
	for _, c := range moved {
		newer.bus.Submit(newer.now, c)
	}
	w.bus.Close(w.now, meter.Errorf(meter.CodeLinkLost, "a newer link took over"))
	newer.serves("3", "2")
	w.told("flying", "accepted", "sent", "failed link_lost")
	w.told("boarded", "accepted", "sent", "failed link_lost")
	w.told("click", "accepted", "queued 1", "accepted", "sent", "done wire 1")
	w.told("joined", "accepted", "queued 1", "accepted", "sent", "done shared 1")
	w.told("batch", "accepted", "queued 1", "queued 2", "accepted", "queued 2", "queued 1", "sent", "done wire 1")
	if _, ok := w.bus.Wake(); ok || w.bus.Held() != 0 {
		t.Fatalf("the closed bus wants to wake, or holds %d", w.bus.Held())
	}
}

func TestAfterAHandoverTheWireGoesOn(t *testing.T) {
	w := newWire(t, 100)
	w.ask("a", "1", long)
	w.sends("1 1")
	w.ask("b", "2", long)
	w.bus.Unsent()
	w.at(500)
	w.hears("1 1 10", Answered)
	w.told("a", "accepted", "sent", "done wire 10")
	w.at(520)
	w.sends("")
}

func TestWhatWaitsToBeRepeatedIsHandedOver(t *testing.T) {
	w := newRetrying(t, 1)
	c := w.ask("a", "1", long)
	w.sends("1 1")
	w.bus.Stray([]byte("?"))
	if moved := w.bus.Unsent(); len(moved) != 0 {
		t.Fatal("what is on the wire was handed over")
	}
	w.at(1000)
	if moved := w.bus.Unsent(); !slices.Equal(moved, []*Command{c}) || w.bus.Held() != 0 {
		t.Fatalf("%d commands were handed over, %d held", len(moved), w.bus.Held())
	}
	w.at(1020)
	w.sends("")
}
