package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// asker is a command, what it was told, and where the rules say it is.
type asker struct {
	Command
	world    *world
	accepted bool
	sent     bool    // it was told so by the present call
	on       *flight // the exchange on the wire that it waits for; nil: it waits for its turn
	position int
	answer   *meter.Answer // the terminal one
}

func (a *asker) meter() string { return a.Target.Meter.String() }

func (a *asker) held() bool { return a.accepted && a.answer == nil }

// waits reports whether a waits for an exchange with this meter to be sent.
func (a *asker) waits(m string) bool { return a.held() && a.on == nil && a.meter() == m }

func (a *asker) hear(said meter.Answer) {
	w := a.world
	if a.answer != nil {
		w.Fatalf("%s was told %s after %s", a.ID, tell(said), tell(*a.answer))
	}
	if said.ID != a.ID || said.Meter != a.Asked || said.Concentrator != concentrator {
		w.Fatalf("%s, who asked for meter %s, was given %+v", a.ID, a.Asked, said)
	}
	switch said.Stage {
	case meter.StageAccepted:
		a.accepted = true
	case meter.StageQueued:
		a.position = said.Position
		if said.WaitMS < 0 {
			w.Fatalf("%s is to wait %d ms", a.ID, said.WaitMS)
		}
	case meter.StageSent:
		a.sent = true
	case meter.StageDone:
		a.done(said)
		a.answer = &said
	case meter.StageFailed:
		if want := a.mayFail(); !slices.Contains(want, said.Error.Code) {
			w.Fatalf("%s failed with %v during %s, want %v", a.ID, said.Error, w.doing, want)
		}
		a.answer = &said
	}
}

// done holds the reading against the exchange that it must come from.
func (a *asker) done(said meter.Answer) {
	w := a.world
	from := w.giving
	if said.Source == meter.SourceRecent {
		from = w.latest[a.meter()]
		if w.doing != "submit" || from == nil || w.now.Sub(from.readAt) > a.MaxAge || !said.At.Equal(from.readAt) {
			w.Fatalf("%s, who takes %v old readings, was given %s of %v during %s", a.ID, a.MaxAge, tell(said), said.At, w.doing)
		}
	} else {
		if from == nil || a.on != from {
			w.Fatalf("%s was given %s during %s", a.ID, tell(said), w.doing)
		}
		if own := said.Source == meter.SourceWire; own == from.first {
			w.Fatalf("%s was given %s, and exchange %d was somebody's own before: %v", a.ID, tell(said), from.serial, from.first)
		}
		from.first = true
	}
	if from.meter != a.meter() || said.Reading.Volume.String() != fmt.Sprint(from.serial) {
		w.Fatalf("%s, who asked for meter %s, was given %s; its exchange was %d with meter %s", a.ID, a.meter(), tell(said), from.serial, from.meter)
	}
}

// mayFail is the codes with which a may fail just now.
func (a *asker) mayFail() []meter.Code {
	w := a.world
	switch {
	case w.doing == "submit":
		return []meter.Code{a.refusal()}
	case w.doing == "cancel "+a.ID.String():
		return []meter.Code{meter.CodeCancelled}
	case w.doing == "close":
		return []meter.Code{meter.CodeLinkLost}
	case w.giving != nil && a.on == w.giving:
		return []meter.Code{meter.CodeMeterRefused}
	case w.doing != "advance":
		return nil
	}
	expired := !w.now.Before(a.Deadline)
	switch {
	case a.on != nil && !expired && (w.now.Before(a.on.until) || a.on.repeated):
		return nil // it has time, and its exchange too
	case a.on != nil && a.on.noise:
		return []meter.Code{meter.CodeBadAnswer}
	case a.on != nil:
		return []meter.Code{meter.CodeMeterSilent}
	case expired && a.repeats():
		return []meter.Code{meter.CodeBadAnswer}
	case expired:
		return []meter.Code{meter.CodeExpired}
	default:
		return nil
	}
}

// repeats reports whether a waits for an exchange that noise has spoilt once.
func (a *asker) repeats() bool {
	return slices.ContainsFunc(a.world.turns, func(t *turn) bool { return t.meter == a.meter() && t.attempts > 0 })
}

// refusal is why the bus does not take a; zero if it must.
func (a *asker) refusal() meter.Code {
	w := a.world
	held := 0
	for _, o := range w.askers {
		if o != a && o.held() {
			held++
		}
	}
	mute := w.mute[a.meter()]
	switch {
	case !w.now.Before(a.Deadline):
		return meter.CodeExpired
	case held >= w.config.Queue:
		return meter.CodeBusy
	case slices.ContainsFunc(w.lost, func(f *flight) bool {
		return f.doubtful && f.meter == a.meter() && !w.now.After(f.lateBy)
	}):
		return meter.CodeMeterSilent
	case a.Lane == meter.LaneBatch && w.now.Sub(mute.since) < mute.skip:
		return meter.CodeMeterSilent
	default:
		return 0
	}
}

// recent reports whether a reading is fresh enough for a, so that nothing needs to be asked.
func (a *asker) recent() bool {
	f := a.world.latest[a.meter()]
	return f != nil && a.MaxAge > 0 && a.world.now.Sub(f.readAt) <= a.MaxAge && a.world.now.Before(a.Deadline)
}

// submit gives the bus a command, for the first time or handed over.
func (w *world) submit(a *asker) {
	recent, refusal := a.recent(), a.refusal()
	a.accepted, a.sent, a.position = false, false, 0
	w.doing = "submit"
	w.bus.Submit(w.now, &a.Command)
	switch {
	case recent && (a.answer == nil || a.answer.Stage != meter.StageDone), !recent && refusal != 0 && a.answer == nil:
		w.Fatalf("%s was taken in, want a recent reading (%v) or %v", a.ID, recent, refusal)
	case recent, refusal == meter.CodeExpired, refusal == meter.CodeBusy:
	case refusal == meter.CodeMeterSilent:
		w.counts.Skipped++
	case !a.accepted:
		w.Fatalf("%s was not accepted", a.ID)
	default:
		w.join(a)
		w.hurried = w.hurried || w.due()
	}
}

// join lets a share an exchange with who asks the same meter, or adds one.
func (w *world) join(a *asker) {
	i := slices.IndexFunc(w.wire, func(f *flight) bool { return f.meter == a.meter() })
	if a.sent != (i >= 0) {
		w.Fatalf("%s was told that its frame is out: %v", a.ID, a.sent)
	}
	if i >= 0 {
		f := w.wire[i]
		a.on = f
		if a.Lane == meter.LaneInteractive {
			f.lane, f.until = a.Lane, f.sentAt.Add(w.config.ResponseTimeout)
		}
		return
	}
	w.back++
	i = slices.IndexFunc(w.turns, func(t *turn) bool { return t.meter == a.meter() })
	switch {
	case i < 0:
		w.turns = append(w.turns, &turn{a.meter(), a.Lane, w.back, 0})
	case w.turns[i].lane > a.Lane:
		w.turns[i].lane, w.turns[i].place = a.Lane, w.back
	}
}

func (w *world) newAsker(m string, lane meter.Lane, timeout, maxAge time.Duration) *asker {
	a := &asker{world: w}
	address := must(meter.ParseAddress(m))
	a.Command = Command{
		ID: must(meter.ParseCommandID(fmt.Sprint("c", len(w.askers)))), Target: Target{concentrator, address}, Asked: address,
		Lane: lane, Arrived: w.now, Deadline: w.now.Add(timeout), MaxAge: maxAge, Emit: a.hear,
	}
	w.askers = append(w.askers, a)
	return a
}
