package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// world is a bus with its wire and its askers, and beside it what the rules say must be: who waits in which order,
// which exchange is on the wire until when, whose answers are late. It tells the bus nothing that a link would not
// tell it, and fails the test at the first thing that the rules do not allow.
type world struct {
	*rapid.T
	config Config
	bare   bool // the protocol has no serial numbers
	dead   map[string]bool
	slow   time.Duration // an answer in time takes at most this long
	bus    *Bus
	now    time.Time

	arrivals []arrival // what is on its way to us
	askers   []*asker
	serial   int
	flights  map[int]*flight // by serial, all there ever were

	// What the rules know of the present bus:
	turns  []*turn   // exchanges to be
	wire   []*flight // exchanges on the wire
	lost   []*flight // exchanges that timed out and are still expected to answer late
	free   time.Time // the gap is over then
	streak int
	front  int // counts down: places for what is repeated
	back   int // counts up: places for what is new
	seen   []time.Duration
	mute   map[string]muteMeter
	latest map[string]*flight // the last reading of each meter
	counts Counts

	giving  *flight // the exchange whose answer is being received
	doing   string
	hurried bool // somebody was to go out at once, and may have to wait after all: positions are told with the next frame
}

// turn is an exchange to be.
type turn struct {
	meter    string
	lane     meter.Lane
	place    int
	attempts int
}

// flight is an exchange that was sent.
type flight struct {
	turn
	serial int
	sentAt time.Time
	until  time.Time // its timeout
	lateBy time.Time // once it timed out: a late answer is expected until then
	readAt time.Time // once it was answered with a reading
	noise  bool      // bytes came that answered nothing
	first  bool      // an asker was told that this exchange was its own

	repeated bool // it timed out after noise, and its turn comes again
	doubtful bool // what may have been its answer was taken for an earlier one's
}

func (w *world) reset() {
	w.bus = New(w.config)
	w.turns, w.wire, w.lost, w.free = nil, nil, nil, time.Time{}
	w.streak, w.front, w.back, w.seen, w.hurried = 0, 0, 0, nil, false
	w.mute, w.latest, w.counts = make(map[string]muteMeter), make(map[string]*flight), Counts{}
}

func newWorld(t *rapid.T, bare bool) *world {
	w := &world{T: t, bare: bare, now: start, dead: make(map[string]bool), flights: make(map[int]*flight)}
	ms := func(name string, choice ...int) time.Duration {
		return time.Duration(rapid.SampledFrom(choice).Draw(t, name)) * time.Millisecond
	}
	w.config = Config{
		Gap:             ms("gap", 0, 20, 200),
		ResponseTimeout: ms("response timeout", 1000, 5000, 300),
		Queue:           rapid.SampledFrom([]int{20, 8, 1}).Draw(t, "queue"),
		Window:          rapid.IntRange(1, 3).Draw(t, "window"),
		Retries:         rapid.IntRange(0, 2).Draw(t, "retries"),
		Request:         w.request,
	}
	w.slow = min(ms("slowest answer", 50, 200, 5000), w.config.ResponseTimeout)
	for _, m := range meters {
		w.dead[m] = rapid.IntRange(0, 3).Draw(t, "meter "+m) == 3
	}
	w.reset()
	return w
}

var meters = []string{"1", "2", "3", "4", "5", "6", "7"}

func (w *world) request(_ meter.ConcentratorID, m meter.Address) driver.Exchange {
	w.serial++
	frame := fmt.Sprintf("%d %s", w.serial, m)
	if w.bare {
		return bareExchange{frame}
	}
	return exchange{frame}
}

// order is the turns in the order in which they are served: in each lane by place, and every fifth is batch.
func (w *world) order() []*turn {
	var lanes [2][]*turn
	for _, t := range slices.SortedFunc(slices.Values(w.turns), func(a, b *turn) int { return a.place - b.place }) {
		lanes[t.lane-1] = append(lanes[t.lane-1], t)
	}
	var all []*turn
	streak := w.streak
	for len(lanes[0])+len(lanes[1]) > 0 {
		lane := 0
		if len(lanes[0]) == 0 || len(lanes[1]) > 0 && streak == 4 {
			lane, streak = 1, 0
		} else {
			streak++
		}
		all = append(all, lanes[lane][0])
		lanes[lane] = lanes[lane][1:]
	}
	return all
}

// pump does what a link does when its timer fires or a frame came.
func (w *world) pump() {
	w.advance()
	for w.start() {
	}
	w.consistent()
}

// advance ends what time has ended.
func (w *world) advance() {
	var over []*flight
	w.wire = slices.DeleteFunc(w.wire, func(f *flight) bool {
		if w.now.Before(f.until) {
			return false
		}
		over = append(over, f)
		return true
	})
	for _, f := range over {
		w.timedOut(f)
	}
	w.doing = "advance"
	w.bus.Advance(w.now)
	for _, a := range w.askers {
		if a.held() && !w.now.Before(a.Deadline) {
			w.Fatalf("%s is without an answer at its deadline", a.ID)
		}
		if a.held() && slices.Contains(over, a.on) {
			if !a.on.repeated {
				w.Fatalf("%s is without an answer after the timeout of exchange %d", a.ID, a.on.serial)
			}
			a.on = nil
		}
	}
	w.leave()
}

func (w *world) timedOut(f *flight) {
	f.lateBy = w.now.Add(lateFactor * w.config.ResponseTimeout)
	w.lost = append(w.lost, f)
	w.free = w.now.Add(w.config.Gap)
	if f.noise {
		w.counts.Noise++
	} else {
		w.counts.Silent++
		w.mute[f.meter] = muteMeter{w.now, min(max(time.Minute, 2*w.mute[f.meter].skip), 30*time.Minute)}
	}
	f.repeated = f.again(w)
	if f.repeated {
		w.front--
		w.counts.Retries++
		w.turns = append(w.turns, &turn{f.meter, f.lane, w.front, f.attempts})
	}
}

// again reports whether f, which times out now, is to be repeated.
func (f *flight) again(w *world) bool {
	return f.noise && !f.doubtful && f.attempts <= w.config.Retries && slices.ContainsFunc(w.askers, func(a *asker) bool {
		return a.held() && a.on == f && a.Deadline.After(w.now.Add(w.config.Gap))
	})
}

// leave removes the turns that nobody waits for.
func (w *world) leave() {
	w.turns = slices.DeleteFunc(w.turns, func(t *turn) bool {
		return !slices.ContainsFunc(w.askers, func(a *asker) bool { return a.waits(t.meter) })
	})
}

// start sends the frame whose turn it is, if the wire is free.
func (w *world) start() bool {
	order := w.order()
	due := w.due()
	w.doing = "start"
	for _, a := range w.askers {
		a.sent = false
	}
	frame, ok := w.bus.Start(w.now)
	if ok != due {
		w.Fatalf("a frame was sent: %v; want %v with %d exchanges waiting, %d on the wire and the gap over in %v",
			ok, due, len(order), len(w.wire), w.free.Sub(w.now))
	}
	if !ok {
		return false
	}
	w.hurried = false
	next := order[0]
	if want := fmt.Sprintf("%d %s", w.serial, next.meter); string(frame) != want {
		w.Fatalf("sent %q, want %q", frame, want)
	}
	w.depart(next)
	return true
}

// due reports whether a frame is to go out now.
func (w *world) due() bool {
	return len(w.turns) > 0 && len(w.wire) < w.config.Window && !w.now.Before(w.free)
}

// depart puts next on the wire with everybody who waits for its meter.
func (w *world) depart(next *turn) {
	for _, f := range w.wire {
		if f.meter == next.meter {
			w.Fatalf("meter %s is asked twice at once", f.meter)
		}
	}
	batchWaits := slices.ContainsFunc(w.turns, func(t *turn) bool { return t.lane == meter.LaneBatch })
	if next.lane == meter.LaneInteractive && batchWaits {
		w.streak++
	} else {
		w.streak = 0
	}
	w.turns = slices.DeleteFunc(w.turns, func(t *turn) bool { return t == next })
	f := &flight{turn: *next, serial: w.serial, sentAt: w.now}
	f.attempts++
	f.until = w.now.Add(w.patience(f.lane))
	for _, a := range w.askers {
		if waits := a.waits(f.meter); waits != a.sent {
			w.Fatalf("%s waits for meter %s: %v; it was told that its frame went out: %v", a.ID, f.meter, waits, a.sent)
		} else if waits {
			a.on, a.position = f, 0
		}
	}
	w.counts.Exchanges++
	w.flights[f.serial] = f
	w.wire = append(w.wire, f)
	w.free = w.now.Add(w.config.Gap)
	w.respond(f)
}

// patience is how long an exchange of this lane may take.
func (w *world) patience(l meter.Lane) time.Duration {
	if l == meter.LaneInteractive || len(w.seen) < 8 {
		return w.config.ResponseTimeout
	}
	slowest := slices.Max(w.seen[max(0, len(w.seen)-32):])
	return min(w.config.ResponseTimeout, max(500*time.Millisecond, 4*slowest))
}

// receive gives the bus a whole frame.
func (w *world) receive(frame string) {
	words := strings.Fields(frame)
	var serial int
	fmt.Sscan(words[0], &serial)
	want, f := w.meaning(serial, words[1])
	switch want {
	case Late:
		w.alive(f)
		w.counts.Late++
		for _, o := range w.wire {
			o.doubtful = o.doubtful || o.meter == f.meter && w.bare
		}
		w.lost = slices.DeleteFunc(w.lost, func(l *flight) bool { return l == f })
	case Answered:
		w.alive(f)
		w.counts.Answered++
		w.wire = slices.DeleteFunc(w.wire, func(o *flight) bool { return o == f })
		w.free = w.now.Add(w.config.Gap)
		w.giving = f
	case Foreign:
		w.noise()
	}
	w.doing = "receive " + frame
	got, reading := w.bus.Receive(w.now, []byte(frame))
	w.giving = nil
	if got != want {
		w.Fatalf("%q was taken as %d, want %d", frame, got, want)
	}
	if want != Answered {
		return
	}
	for _, a := range w.askers {
		if a.held() && a.on == f {
			w.Fatalf("%s is without an answer though exchange %d has one", a.ID, f.serial)
		}
	}
	if refused := words[2] == "!"; refused != (reading == nil) {
		w.Fatalf("%q gave the reading %v", frame, reading)
	} else if !refused {
		w.latest[f.meter], f.readAt = f, w.now
	}
}

// meaning is what a frame is by the rules: the answer to an exchange on the wire, a late one, or nothing.
func (w *world) meaning(serial int, m string) (Receipt, *flight) {
	answers := func(f *flight) bool { return f.meter == m && (w.bare || f.serial == serial) }
	w.lost = slices.DeleteFunc(w.lost, func(f *flight) bool { return w.now.After(f.lateBy) })
	if i := slices.IndexFunc(w.lost, answers); i >= 0 {
		return Late, w.lost[i]
	}
	if i := slices.IndexFunc(w.wire, answers); i >= 0 {
		return Answered, w.wire[i]
	}
	return Foreign, nil
}

func (w *world) alive(f *flight) {
	w.seen = append(w.seen, w.now.Sub(f.sentAt))
	delete(w.mute, f.meter)
}

func (w *world) noise() {
	for _, f := range w.wire {
		f.noise = true
	}
}

// consistent compares what the bus says of itself, after all that is due was done, with what the rules know.
func (w *world) consistent() {
	held := 0
	var wake time.Time
	sooner := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	places := make(map[string]int)
	for i, t := range w.order() {
		places[t.meter] = i + 1
	}
	for _, a := range w.askers {
		if !a.held() {
			continue
		}
		held++
		sooner(a.Deadline)
		place := places[a.meter()]
		if a.on == nil && a.position != place && !w.hurried {
			w.Fatalf("%s stands at %d and was told %d", a.ID, place, a.position)
		}
	}
	for _, f := range w.wire {
		sooner(f.until)
	}
	if len(w.turns) > 0 && len(w.wire) < w.config.Window {
		sooner(w.free)
	}
	if got := w.bus.Held(); got != held || got > w.config.Queue {
		w.Fatalf("%d commands are held, want %d of at most %d", got, held, w.config.Queue)
	}
	if got := w.bus.Counts(); got != w.counts {
		w.Fatalf("counted %+v, want %+v", got, w.counts)
	}
	at, ok := w.bus.Wake()
	if ok == wake.IsZero() || !at.Equal(wake) {
		w.Fatalf("wants to wake at %v (%v), want %v", at, ok, wake)
	}
	if ok && !at.After(w.now) {
		w.Fatalf("wants to wake at %v, which is past, though all is done", at)
	}
	if len(w.wire) > w.config.Window || len(slices.Collect(maps.Keys(places))) != len(w.turns) {
		w.Fatalf("%d exchanges are on the wire, %d wait for %d meters", len(w.wire), len(w.turns), len(places))
	}
}
