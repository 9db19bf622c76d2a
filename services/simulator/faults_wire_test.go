package simulator

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

// faulty is a link to meter 101001 of a town with these faults.
func faulty(t *testing.T, f Faults) (*testLink, *Simulator) {
	t.Helper()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{1, 20}, Seed: 1, Faults: f})
	return g.login(), s
}

const shortSilence = 100 * time.Millisecond

func TestFaultDrop(t *testing.T) {
	t.Parallel()
	l, s := faulty(t, Faults{Drop: 1})
	l.send(l.request("101001").Frame())
	l.silent(shortSilence)
	if got := s.Frames(l.concentrator, address(t, "101001")); got != 1 {
		t.Errorf("the dropped request was counted %d times", got)
	}
}

func TestFaultLate(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Late: 1, LateBy: 2 * shortSilence})
	x := l.request("101001")
	l.send(x.Frame())
	l.silent(shortSilence)
	if v := l.verdict(x); v.Reading == nil {
		t.Errorf("the late answer is none: %+v", v)
	}
}

func TestFaultWrong(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Wrong: 1})
	x := l.request("101020")
	before := time.Now()
	l.send(x.Frame())
	raw, err := l.frame(patience)
	if err != nil {
		t.Fatal(err)
	}
	if x.Judge(raw).Foreign == "" {
		t.Error("another meter's answer passes for the one asked for")
	}
	neighbour := l.request("101001")
	if v := neighbour.Judge(raw); v.Foreign == "" {
		t.Errorf("the serial number of %+v should be the request's, not the neighbour's", v)
	}
	f, err := cjt188.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reading()
	if err != nil || f.Address.String() != "00000000101001" || !near(l.concentrator, address(t, "101001"), r.Volume, before) {
		t.Errorf("%s does not say what meter 101001 shows: %v", meter.Hex(raw), err)
	}
}

func TestFaultCorrupt(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Corrupt: 1})
	for range 20 {
		l.send(l.request("101001").Frame())
	}
	l.silent(2 * shortSilence)
}

func TestFaultDuplicate(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Duplicate: 1})
	x := l.request("101001")
	l.send(x.Frame())
	for range 2 {
		if v := l.verdict(x); v.Reading == nil {
			t.Fatalf("no reading: %+v", v)
		}
	}
	l.silent(shortSilence)
}

func TestFaultGarbage(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Garbage: 1})
	for range 20 {
		x := l.request("101001")
		l.send(x.Frame())
		if v := l.verdict(x); v.Reading == nil {
			t.Fatalf("no reading among the garbage: %+v", v)
		}
	}
}

func TestFaultHangUp(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	start(t, Config{Gateway: g.address(), Town: Town{1, 20}, Faults: Faults{HangUp: 1}})
	for range 2 {
		l := g.login()
		l.send(l.request("101001").Frame())
		l.ended()
	}
}

func TestFaultSplit(t *testing.T) {
	t.Parallel()
	l, _ := faulty(t, Faults{Split: 1, SplitPause: time.Millisecond})
	before := time.Now()
	l.read("101001")
	if took := time.Since(before); took < 34*time.Millisecond {
		t.Errorf("35 bytes with a pause of 1 ms between them came within %s", took)
	}
}

func TestFaultUnasked(t *testing.T) {
	t.Parallel()
	l, s := faulty(t, Faults{Unasked: 10 * time.Millisecond})
	addresses := make(map[string]bool)
	for range 3 {
		raw, err := l.frame(patience)
		if err != nil {
			t.Fatal(err)
		}
		f, err := cjt188.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Reading(); err != nil {
			t.Errorf("%s is no reading: %v", meter.Hex(raw), err)
		}
		addresses[f.Address.String()] = true
	}
	if len(addresses) != 3 {
		t.Errorf("the reports should come from one meter after another, they came from %v", addresses)
	}
	if s.TotalFrames() != 0 {
		t.Error("reports were counted as requests")
	}
}

func TestFaultsOverTheWireFollowFromSeedAndOrder(t *testing.T) {
	t.Parallel()
	faults, draws := Faults{Drop: 0.5}, rand.NewPCG(1, 101)
	l, _ := faulty(t, faults)
	var survivors []driver.Exchange
	for range 50 {
		x := l.request("101001")
		l.send(x.Frame())
		if !faults.draw(draws).drop {
			survivors = append(survivors, x)
		}
	}
	if len(survivors) < 10 || len(survivors) > 40 {
		t.Fatalf("%d of 50 requests are to be answered at a drop rate of one half", len(survivors))
	}
	for i, x := range survivors {
		if v := l.verdict(x); v.Reading == nil {
			t.Fatalf("answer %d of %d is to another request: %+v", i+1, len(survivors), v)
		}
	}
	l.silent(shortSilence)
}
