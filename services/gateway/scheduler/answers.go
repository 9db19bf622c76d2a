package scheduler

import (
	"slices"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// tellPositions tells the waiters of every job that moved where it stands now.
func (b *Bus) tellPositions(now time.Time) {
	place := 0
	for j := range b.lanes.all() {
		place++
		if j.position == place || place == 1 && b.ready(now) {
			continue // nothing new, or it goes out at once
		}
		j.position = place
		for _, c := range j.waiters {
			b.tellPosition(now, c, j)
		}
	}
}

func (b *Bus) tellPosition(now time.Time, c *Command, j *job) {
	a := meter.Answer{Stage: meter.StageQueued, Position: j.position}
	if usual, ok := b.pace.usual(); ok {
		a.WaitMS = b.wait(now, j.position, usual).Milliseconds()
	}
	b.emit(now, c, a)
}

// wait estimates when the frame at this position goes out: what is on the wire must end, and what stands before
// must come and go, each in the usual time.
func (b *Bus) wait(now time.Time, position int, usual time.Duration) time.Duration {
	w := max(0, b.free.Sub(now))
	for _, j := range b.flying {
		w = max(w, j.sentAt.Add(usual).Sub(now)+b.config.Gap)
	}
	return w + time.Duration(position-1)*(usual+b.config.Gap)/time.Duration(b.config.Window)
}

// unanswered fails a command whose exchange was sent and has no answer.
func (b *Bus) unanswered(now time.Time, c *Command, j *job) {
	err := meter.Errorf(meter.CodeMeterSilent, "meter %s did not answer in time; check its address, its wiring and its battery", c.Asked)
	if len(j.stray) > 0 {
		err = meter.Errorf(meter.CodeBadAnswer, "meter %s was asked, and what came was no valid answer of it: %X; look for a second meter with this address, noise on the bus, or a wrong protocol", c.Asked, j.stray)
	}
	b.emit(now, c, meter.Answer{
		Stage: meter.StageFailed, Error: err,
		Frames: &meter.Frames{Sent: j.exchange.Frame(), Received: slices.Clone(j.stray)},
		Timing: &meter.Timing{
			Queue: max(0, j.sentAt.Sub(c.Arrived)).Milliseconds(),
			Wire:  now.Sub(j.sentAt).Milliseconds(),
			Total: now.Sub(c.Arrived).Milliseconds(),
		},
	})
}

func (b *Bus) done(now time.Time, c *Command, r recentReading, s meter.Source, sentAt time.Time) {
	a := r.answer(s)
	a.Timing.Queue = max(0, sentAt.Sub(c.Arrived)).Milliseconds()
	a.Timing.Total = now.Sub(c.Arrived).Milliseconds()
	b.emit(now, c, a)
}

func (b *Bus) fail(now time.Time, c *Command, err *meter.Error) { b.failWith(now, c, err, nil) }

func (b *Bus) failWith(now time.Time, c *Command, err *meter.Error, frames *meter.Frames) {
	b.emit(now, c, meter.Answer{
		Stage: meter.StageFailed, Error: err, Frames: frames,
		Timing: &meter.Timing{Total: now.Sub(c.Arrived).Milliseconds()},
	})
}

func (b *Bus) emit(now time.Time, c *Command, a meter.Answer) {
	a.ID, a.Concentrator, a.Meter = c.ID, c.Target.Concentrator, c.Asked
	if a.At.IsZero() {
		a.At = now
	}
	a.At = a.At.UTC().Truncate(time.Millisecond)
	c.Emit(a)
}
