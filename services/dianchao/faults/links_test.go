package faults

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// scene is a concentrator 101 whose link or meters misbehave, and a concentrator 102 that has nothing to do with it.
type scene struct {
	*world
	door *toxiproxy.Proxy     // 101 dials in through it
	sick *simulator.Simulator // 101
}

const delay = 30 * time.Millisecond // of every meter

func newScene(t *testing.T, wires timing, f simulator.Faults) *scene {
	w := newWorld(t, wires)
	s := &scene{world: w, door: w.proxy()}
	well := simulator.Config{Gateway: w.address(), Town: simulator.Town{Concentrators: 2, Meters: meters}, Delay: delay}
	w.town(well, "101")
	s.sick = w.town(simulator.Config{
		Gateway: s.door.Listen, Town: simulator.Town{Concentrators: 1, Meters: meters},
		Delay: delay, Heartbeat: 200 * time.Millisecond, Seed: 1, Faults: f,
	})
	reached(t, "101 and 102 are online", w.gateway.Holds(2))
	return s
}

// toxic puts toxics into the link of 101.
func toxic(toxics ...string) func(*scene) {
	return func(s *scene) { poison(s.t, s.door, toxics...) }
}

// detox takes them out again; the link stands.
func detox(s *scene) { s.door.Toxics.ResetToxics(s.t.Context()) }

// redial is the box in the basement after a power cut: it dials in anew while the gateway still has its old
// connection, on which nothing comes or goes any more.
func redial(s *scene) {
	toxic(`{"type":"timeout","stream":"upstream"}`, `{"type":"timeout","stream":"downstream"}`)(s)
	s.town(simulator.Config{Gateway: s.address(), Town: simulator.Town{Concentrators: 1, Meters: meters}, Delay: delay})
}

func unplugOld(s *scene) {
	if err := s.sick.Unplug(concentrator("101")); err != nil {
		s.t.Error(err)
	}
}

// reopen starts the door again.
func reopen(s *scene) {
	if err := s.door.Start(); err != nil {
		s.t.Error(err)
	}
}

var (
	lost     = []meter.Code{meter.CodeLinkLost, meter.CodeConcentratorOffline}
	silent   = []meter.Code{meter.CodeMeterSilent}
	bad      = []meter.Code{meter.CodeBadAnswer}
	nothing  = []meter.Code{meter.CodeMeterSilent, meter.CodeExpired}
	whatever = slices.Concat(lost, silent, bad)
)

func TestLinksThatMisbehave(t *testing.T) {
	for _, row := range []struct {
		name    string
		wires   timing
		faults  simulator.Faults
		strike  func(*scene)  // once the first frame went out
		heal    func(*scene)  // when all have clicked
		clicks  int           // of each of four clients
		timeout time.Duration // of each click
		codes   []meter.Code  // what else than a reading may be the answer
		shows   []string      // what must be among the answers
	}{
		{name: "latency and jitter", wires: tolerant, clicks: 6, timeout: 15 * time.Second, shows: []string{"done"}, heal: detox,
			strike: toxic(
				`{"type":"latency","stream":"upstream","attributes":{"latency":80,"jitter":60}}`,
				`{"type":"latency","stream":"downstream","attributes":{"latency":80,"jitter":60}}`)},
		// 2400 bit/s are 240 bytes a second. The toxic bandwidth counts in KB, so every byte waits by itself.
		{name: "2400 bit/s", wires: tolerant, clicks: 5, timeout: 15 * time.Second, shows: []string{"done"}, heal: detox,
			strike: toxic(
				`{"type":"slicer","stream":"upstream","attributes":{"average_size":1,"delay":4200}}`,
				`{"type":"slicer","stream":"downstream","attributes":{"average_size":1,"delay":4200}}`)},
		{name: "single bytes", wires: tolerant, clicks: 6, timeout: 15 * time.Second, shows: []string{"done"}, heal: detox,
			strike: toxic(
				`{"type":"slicer","stream":"upstream","attributes":{"average_size":1}}`,
				`{"type":"slicer","stream":"downstream","attributes":{"average_size":1}}`)},
		{name: "reset at every request", wires: brisk, clicks: 12, timeout: 4 * time.Second, codes: lost, shows: []string{"link_lost"}, heal: detox,
			strike: toxic(`{"type":"reset_peer","stream":"downstream","attributes":{"timeout":20}}`)},
		{name: "cut after every 200 bytes", wires: brisk, clicks: 12, timeout: 4 * time.Second, codes: lost, shows: []string{"done", "link_lost"}, heal: detox,
			strike: toxic(`{"type":"limit_data","stream":"upstream","attributes":{"bytes":200}}`)},
		{name: "half open, requests are swallowed", wires: brisk, clicks: 3, timeout: time.Second, codes: nothing, shows: []string{"meter_silent", "expired"}, heal: detox,
			strike: toxic(`{"type":"timeout","stream":"downstream"}`)},
		{name: "half open, answers are swallowed", wires: brisk, clicks: 3, timeout: time.Second, codes: nothing, shows: []string{"meter_silent", "expired"}, heal: detox,
			strike: toxic(`{"type":"timeout","stream":"upstream"}`)},
		{name: "half open, and the box dials in anew", wires: brisk, clicks: 8, timeout: 4 * time.Second,
			codes: []meter.Code{meter.CodeLinkLost, meter.CodeMeterSilent}, shows: []string{"done"}, strike: redial, heal: unplugOld},
		{name: "refused", wires: brisk, clicks: 12, timeout: 4 * time.Second, codes: lost, shows: []string{"concentrator_offline"},
			strike: func(s *scene) { s.door.Stop() }, heal: reopen},

		{name: "meters do not answer", wires: brisk, faults: simulator.Faults{Drop: 0.3},
			clicks: 5, timeout: 6 * time.Second, codes: silent, shows: []string{"done", "meter_silent"}},
		{name: "answers come after the timeout", wires: brisk, faults: simulator.Faults{Late: 0.3, LateBy: brisk.response + 50*time.Millisecond},
			clicks: 5, timeout: 6 * time.Second, codes: silent, shows: []string{"done", "meter_silent"}},
		{name: "another meter answers", wires: brisk, faults: simulator.Faults{Wrong: 0.5},
			clicks: 4, timeout: 6 * time.Second, codes: bad, shows: []string{"done", "bad_answer"}},
		{name: "a byte is corrupt", wires: brisk, faults: simulator.Faults{Corrupt: 0.5},
			clicks: 4, timeout: 6 * time.Second, codes: bad, shows: []string{"done", "bad_answer"}},
		{name: "answers come twice", wires: brisk, faults: simulator.Faults{Duplicate: 0.7},
			clicks: 8, timeout: 6 * time.Second, shows: []string{"done"}},
		{name: "garbage around answers", wires: brisk, faults: simulator.Faults{Garbage: 0.7},
			clicks: 8, timeout: 6 * time.Second, shows: []string{"done"}},
		{name: "reports that nobody asked for", wires: brisk, faults: simulator.Faults{Unasked: 10 * time.Millisecond},
			clicks: 8, timeout: 6 * time.Second, shows: []string{"done"}},
		{name: "the link goes down in the middle of an answer", wires: brisk, faults: simulator.Faults{HangUp: 0.2},
			clicks: 10, timeout: 6 * time.Second, codes: lost, shows: []string{"done", "link_lost"}},
		{name: "answers come byte by byte", wires: tolerant, faults: simulator.Faults{Split: 0.7, SplitPause: 2 * time.Millisecond},
			clicks: 6, timeout: 15 * time.Second, shows: []string{"done"}},
		{name: "everything at once", wires: brisk, clicks: 8, timeout: 6 * time.Second, codes: whatever, shows: []string{"done"}, heal: detox,
			faults: simulator.Faults{
				Drop: 0.05, Late: 0.05, LateBy: brisk.response + 50*time.Millisecond, Wrong: 0.05, Corrupt: 0.05, Duplicate: 0.2,
				Garbage: 0.2, HangUp: 0.05, Split: 0.2, SplitPause: time.Millisecond, Unasked: 50 * time.Millisecond,
			},
			strike: toxic(
				`{"type":"latency","stream":"upstream","attributes":{"latency":20,"jitter":15}}`,
				`{"type":"slicer","stream":"upstream","attributes":{"average_size":8,"size_variation":7,"delay":500}}`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, row.wires, row.faults)
			stop := s.neighbours(10, "102")
			defer stop()
			strike := sync.OnceFunc(func() {
				if row.strike != nil {
					row.strike(s)
				}
			})
			crowd := s.click(4, "101", row.timeout, row.codes, strike, func(clicks int) bool { return clicks >= row.clicks })
			t.Logf("%v, the longest %s", crowd.tally, crowd.longest)
			for _, shown := range row.shows {
				if crowd.tally[shown] == 0 {
					t.Errorf("nobody was answered %s", shown)
				}
			}
			if row.heal != nil {
				row.heal(s)
			}
			s.reads(t, "101")
		})
	}
}
