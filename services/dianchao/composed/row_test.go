//go:build composed

package composed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// command is one click. It belongs to its client until it has ended.
type command struct {
	id       string
	entry    simulator.Entry
	clicked  time.Time
	deadline time.Time
	session  *session // that it was asked over and that is still there
	asked    time.Time
	asks     int
	stage    string // the last one it was told
	expiry   *timer

	ended     time.Time
	outcome   string // done, or why not
	connected bool   // when its client gave up
	answer    []byte
}

func (k *command) String() string {
	return fmt.Sprintf("%s (meter %s, clicked %s, asked %d times, last stage %q)", k.id, k.entry.Meter, k.clicked.UTC().Format("15:04:05.000"), k.asks, k.stage)
}

// due is by when the answer must be there, see the package's documentation.
func (k *command) due() time.Time {
	from := k.deadline
	if k.asked.After(from) {
		from = k.asked
	}
	return from.Add(time.Second)
}

// fail returns why the click was not treated as the contract promises, or nil.
func (k *command) fail() error {
	switch {
	case k.outcome == "no_answer" && k.connected && k.ended.After(k.due()):
		return errLost
	case k.outcome == "no_answer":
		return nil
	case k.ended.After(k.due()):
		return fmt.Errorf("%s came %s after it was due", k.outcome, k.ended.Sub(k.due()))
	}
	var a meter.Answer
	if err := json.Unmarshal(k.answer, &a); err != nil {
		return fmt.Errorf("%w: %s", err, k.answer)
	}
	switch {
	case a.Concentrator != k.entry.Concentrator || a.Meter != k.entry.Meter:
		return fmt.Errorf("the answer is for meter %s of %s", a.Meter, a.Concentrator)
	case a.Stage == meter.StageFailed && (a.Error == nil || a.Error.Message == ""):
		return errors.New("it failed without a word")
	case a.Stage == meter.StageFailed:
		return nil
	case a.Reading == nil || a.Reading.Volume == nil:
		return errors.New("it is done without a reading")
	case a.At.Before(k.clicked.Truncate(time.Millisecond)):
		return fmt.Errorf("the reading is of %s, before the click", a.At)
	}
	shown := func(at time.Time) meter.Decimal { return simulator.Volume(a.Concentrator, a.Meter, at) }
	if v := a.Reading.Volume; v.Cmp(shown(a.At.Add(-time.Minute))) < 0 || v.Cmp(shown(a.At.Add(time.Minute))) > 0 {
		return fmt.Errorf("it is done with %s m³ at %s, the meter showed %s", v, a.At, shown(a.At))
	}
	return nil
}

var errLost = errors.New("it was lost: nothing came until two seconds after its deadline")

// row is a fault and the clicks that it met.
type row struct {
	tag   string // in the clicks' ids
	name  string
	codes []meter.Code // that are true while the fault lasts
	most  float64      // share of clicks that may fail
	fault func(*testing.T, *system, *crowd)
	edges int // before the fault; 3 if 0

	mu         sync.Mutex
	over       bool
	commands   []*command
	open       int
	idle       chan struct{} // closed when it is over and nothing is open
	away       time.Duration // the longest that a client had no session
	complaints []string

	began, recovered time.Time // of the fault
	notes            []string  // to print below the table
}

func (r *row) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *row) begin(k *command) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	r.commands = append(r.commands, k)
	r.open++
	return true
}

func (r *row) end(*command) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	r.closeIfIdle()
}

func (r *row) closeIfIdle() {
	if r.over && r.open == 0 {
		close(r.idle)
	}
}

// finish lets nobody click any more and returns once every click has ended, which its client sees to.
func (r *row) finish(ctx context.Context) error {
	r.mu.Lock()
	r.over = true
	r.closeIfIdle()
	r.mu.Unlock()
	select {
	case <-r.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *row) wasAway(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = max(r.away, d)
}

func (r *row) complain(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

// verdict judges every click and returns the row's line of the table.
func (r *row) verdict(t *testing.T) string {
	var lost, answered, again int
	failed, when := make(map[string]int), make(map[string]int)
	var took [3][]time.Duration // before, during and after the fault, by when they clicked
	for _, k := range r.commands {
		err := k.fail()
		switch {
		case err != nil:
			lost++
		case k.outcome == "done":
			answered++
		case !r.excuses(k):
			err = errors.New("no such failure is to be expected here")
		}
		if err != nil {
			r.complaints = append(r.complaints, fmt.Sprintf("%s ended as %s after %s: %v %s", k, k.outcome, k.ended.Sub(k.clicked), err, k.answer))
		}
		if k.asks > 1 {
			again++
		}
		if k.outcome != "done" {
			when[fmt.Sprintf("%3.0f s %s", k.clicked.Sub(r.began).Truncate(5*time.Second).Seconds(), k.outcome)]++
			if failed[k.outcome]++; failed[k.outcome] <= 2 {
				t.Logf("e.g. %s: %s ended as %s after %s %s", r.tag, k, k.outcome, k.ended.Sub(k.clicked), k.answer)
			}
			continue
		}
		part := 0
		if k.clicked.After(r.recovered) {
			part = 2
		} else if k.clicked.After(r.began) {
			part = 1
		}
		took[part] = append(took[part], k.ended.Sub(k.clicked))
	}
	if len(when) > 0 {
		t.Logf("failed clicks by when they were made, in steps of five seconds since the fault began: %s", tally(when))
	}
	if share := float64(len(r.commands)-lost-answered) / float64(len(r.commands)); share > r.most {
		t.Errorf("%.1f %% of the clicks failed, at most %.1f %% should", 100*share, 100*r.most)
	}
	const most = 20
	for _, c := range r.complaints[:min(most, len(r.complaints))] {
		t.Error(c)
	}
	if n := len(r.complaints); n > most {
		t.Errorf("and %d more", n-most)
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %s | %d | %s | %s | %s | %.1f s | %.1f s |", r.name, len(r.commands), answered, again, tally(failed), lost,
		percentiles(took[0]), percentiles(took[1]), percentiles(took[2]), r.recovered.Sub(r.began).Seconds(), r.away.Seconds())
}

const heading = `| fault | clicks | answered | asked again | failed, by code | lost or wrong | p50/p99 before | during | after | fault lasted | longest without a session |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |`

// excuses reports whether the fault explains a failure: it was there while the click waited, and its code is true of it.
func (r *row) excuses(k *command) bool {
	if k.ended.Before(r.began) || k.clicked.After(r.recovered) {
		return false
	}
	return slices.ContainsFunc(r.codes, func(c meter.Code) bool { return c.String() == k.outcome })
}

func tally(counts map[string]int) string {
	if len(counts) == 0 {
		return "0"
	}
	var out []string
	for code, n := range counts {
		out = append(out, fmt.Sprintf("%s %d", code, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func percentiles(took []time.Duration) string {
	if len(took) == 0 {
		return "-"
	}
	slices.Sort(took)
	n := len(took)
	return fmt.Sprintf("%d/%d ms", took[n/2].Milliseconds(), took[n*99/100].Milliseconds())
}
