// Package scheduler decides what goes over one bus, and when.
//
// A bus (M-Bus, RS-485, a radio cell) is half duplex: while one meter is asked nobody else may talk. So:
//
//   - One exchange at a time. The next frame goes out Config.Gap after the last exchange ended, by its answer or
//     by its timeout.
//   - Commands are served in the order in which they came.
//   - Commands for the same meter share one exchange, also when it is already on the wire: ten clicks are one
//     frame and ten answers.
//   - A command whose deadline passes while it waits is CodeExpired, and nothing is ever sent after the last
//     waiter's deadline. One whose deadline passes while its exchange is on the wire is CodeMeterSilent; the
//     bus stays taken until the answer or the response timeout all the same, because the meter may still talk.
//   - An answer is only an answer to the exchange that asked. One that belongs to an exchange which timed out
//     is late: counted and dropped.
//   - At most Config.Queue commands are held; one more is CodeBusy.
//
// A Bus is a plain state machine: it starts no goroutine and never looks at a clock, its caller passes the time
// in and asks Wake when to come back. Its methods must not be called concurrently.
package scheduler

import (
	"slices"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Target is one meter: an address in its canonical spelling behind a concentrator.
type Target struct {
	Concentrator meter.ConcentratorID
	Meter        meter.Address
}

// Config is what a Bus needs to know about its wire.
type Config struct {
	Gap             time.Duration // silence between two exchanges
	ResponseTimeout time.Duration // from a frame to its whole answer
	Queue           int           // most commands held at once
	// Request makes the exchange that reads a meter.
	Request func(meter.ConcentratorID, meter.Address) driver.Exchange
}

// Command is one asker's wish. Its fields are set before Submit and not changed after.
type Command struct {
	ID       meter.CommandID
	Target   Target
	Asked    meter.Address // the meter as the asker spells it
	Arrived  time.Time
	Deadline time.Time
	MaxAge   time.Duration
	// Emit takes each stage, the terminal one last and exactly once. It must not block and must not call the Bus.
	Emit func(meter.Answer)
}

// job is one exchange to be and the commands that wait for it; the first of them caused it.
type job struct {
	target   Target
	waiters  []*Command
	exchange driver.Exchange // nil while queued
	sentAt   time.Time
	stray    []byte // bytes that came while it was on the wire and answered nothing
	position int    // as last told to the waiters
}

// Bus is the schedule of one bus. Make it with New.
type Bus struct {
	config Config
	queue  []*job
	flying *job
	free   time.Time // no frame goes out before
	held   int       // commands in queue and flying
	silent []silence // exchanges that timed out, whose answers would be late
	recent map[Target]recentReading
	Late   int // answers that came after their exchange had timed out
}

type silence struct {
	exchange driver.Exchange
	until    time.Time
}

type recentReading struct {
	at      time.Time
	reading *meter.Reading
	frames  *meter.Frames
	wire    time.Duration
}

const (
	maxStray  = 512  // bytes kept to show with CodeBadAnswer
	maxSilent = 16   // timed-out exchanges whose late answers are recognised
	maxRecent = 1024 // readings kept for MaxAge
	// lateFactor × the response timeout after its end, an exchange's answer is not expected any more.
	lateFactor = 2
)

// New returns the schedule of an idle bus.
func New(c Config) *Bus { return &Bus{config: c} }

// Submit takes a command in. Its first stage is emitted before Submit returns.
func (b *Bus) Submit(now time.Time, c *Command) {
	if !now.Before(c.Deadline) {
		b.fail(now, c, meter.Errorf(meter.CodeExpired, "the deadline had passed when the command for meter %s arrived; nothing was sent, ask again", c.Asked))
		return
	}
	if r, ok := b.recent[c.Target]; ok && c.MaxAge > 0 && now.Sub(r.at) <= c.MaxAge {
		r.wire = 0
		b.done(now, c, r, meter.SourceRecent, now)
		return
	}
	if b.held >= b.config.Queue {
		b.fail(now, c, meter.Errorf(meter.CodeBusy, "%d commands wait for concentrator %s already; ask again in a while", b.held, c.Target.Concentrator))
		return
	}
	b.held++
	b.emit(now, c, meter.Answer{Stage: meter.StageAccepted})
	if j := b.flying; j != nil && j.target == c.Target {
		j.waiters = append(j.waiters, c)
		b.emit(now, c, meter.Answer{Stage: meter.StageSent})
		return
	}
	i := slices.IndexFunc(b.queue, func(j *job) bool { return j.target == c.Target })
	if i < 0 {
		b.queue = append(b.queue, &job{target: c.Target})
		i = len(b.queue) - 1
	}
	j := b.queue[i]
	j.waiters = append(j.waiters, c)
	if i > 0 || !b.idle(now) {
		j.position = i + 1
		b.emit(now, c, meter.Answer{Stage: meter.StageQueued, Position: j.position})
	}
}

func (b *Bus) idle(now time.Time) bool { return b.flying == nil && !now.Before(b.free) }

// Start returns the frame that is to go out now, if one is.
func (b *Bus) Start(now time.Time) (frame []byte, ok bool) {
	b.expire(now)
	if len(b.queue) == 0 || !b.idle(now) {
		return nil, false
	}
	j := b.queue[0]
	b.queue = slices.Delete(b.queue, 0, 1)
	j.exchange = b.config.Request(j.target.Concentrator, j.target.Meter)
	j.sentAt = now
	b.flying = j
	for _, c := range j.waiters {
		b.emit(now, c, meter.Answer{Stage: meter.StageSent})
	}
	b.tellPositions(now)
	return j.exchange.Frame(), true
}

// Ready reports whether Start has a frame to send.
func (b *Bus) Ready(now time.Time) bool { return len(b.queue) > 0 && b.idle(now) }

// Advance ends what time has ended: waiters whose deadline passed, the exchange whose response timeout passed.
func (b *Bus) Advance(now time.Time) {
	if j := b.flying; j != nil && !now.Before(j.sentAt.Add(b.config.ResponseTimeout)) {
		b.rememberSilence(now, j.exchange)
		b.end(now, j, func(c *Command) { b.unanswered(now, c, j) })
	}
	b.expire(now)
}

// Wake returns when Advance or Start next has something to do; false if that takes another event.
func (b *Bus) Wake() (at time.Time, ok bool) {
	sooner := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if j := b.flying; j != nil {
		sooner(j.sentAt.Add(b.config.ResponseTimeout))
		for _, c := range j.waiters {
			sooner(c.Deadline)
		}
	} else if len(b.queue) > 0 {
		sooner(b.free)
	}
	for _, j := range b.queue {
		for _, c := range j.waiters {
			sooner(c.Deadline)
		}
	}
	return at, ok
}

// Receipt is what a frame turned out to be.
type Receipt uint8

const (
	Answered Receipt = iota + 1 // it answered the exchange on the wire
	Late                        // it answered one that had timed out
	Foreign                     // it answered nothing we asked
)

// Receive takes a whole valid frame. For Answered with a reading, it returns that as a done answer without an
// id, for whoever keeps readings; else nil.
func (b *Bus) Receive(now time.Time, frame []byte) (Receipt, *meter.Answer) {
	// Exchanges that timed out come first: in a protocol without serial numbers the first answer belongs to the
	// first question.
	b.forgetSilence(now)
	for i, s := range b.silent {
		if s.exchange.Judge(frame).Answers() {
			b.silent = slices.Delete(b.silent, i, i+1)
			b.Late++
			return Late, nil
		}
	}
	j := b.flying
	if j == nil {
		return Foreign, nil
	}
	v := j.exchange.Judge(frame)
	switch {
	case v.Reading != nil:
		r := recentReading{
			at: now, reading: v.Reading, wire: now.Sub(j.sentAt),
			frames: &meter.Frames{Sent: j.exchange.Frame(), Received: slices.Clone(frame)},
		}
		b.remember(j.target, r)
		source := meter.SourceWire
		b.end(now, j, func(c *Command) {
			b.done(now, c, r, source, j.sentAt)
			source = meter.SourceShared
		})
		a := answerOf(r, meter.SourceWire)
		a.Concentrator, a.Meter, a.Stage = j.target.Concentrator, j.target.Meter, meter.StageDone
		return Answered, &a
	case v.Err != nil:
		frames := &meter.Frames{Sent: j.exchange.Frame(), Received: slices.Clone(frame)}
		b.end(now, j, func(c *Command) { b.failWith(now, c, v.Err, frames) })
		return Answered, nil
	default:
		b.Stray(frame)
		return Foreign, nil
	}
}

// Stray takes bytes that are no valid frame or no answer. If the exchange on the wire gets no answer, they show
// what came instead.
func (b *Bus) Stray(raw []byte) {
	if j := b.flying; j != nil {
		j.stray = append(j.stray, raw[:min(len(raw), maxStray-len(j.stray))]...)
	}
}

// Cancel withdraws a command; it gets CodeCancelled. False if the bus does not hold it.
func (b *Bus) Cancel(now time.Time, c *Command) bool {
	found := false
	b.drop(func(w *Command) bool {
		if w != c {
			return false
		}
		found = true
		b.fail(now, w, meter.Errorf(meter.CodeCancelled, "the read of meter %s was cancelled", w.Asked))
		return true
	})
	b.tellPositions(now)
	return found
}

// Close fails every command with err; the link is gone.
func (b *Bus) Close(now time.Time, err *meter.Error) {
	b.drop(func(c *Command) bool {
		b.fail(now, c, err)
		return true
	})
	b.flying = nil
}

// Held is how many commands the bus holds.
func (b *Bus) Held() int { return b.held }

// expire fails the waiters whose deadline has passed. An exchange on the wire goes on without them.
func (b *Bus) expire(now time.Time) {
	before := len(b.queue)
	b.drop(func(c *Command) bool {
		if now.Before(c.Deadline) {
			return false
		}
		if j := b.flying; j != nil && slices.Contains(j.waiters, c) {
			b.unanswered(now, c, j)
		} else {
			b.fail(now, c, meter.Errorf(meter.CodeExpired, "the deadline passed while meter %s waited for the bus of concentrator %s; nothing was sent, ask again with more time", c.Asked, c.Target.Concentrator))
		}
		return true
	})
	if len(b.queue) != before {
		b.tellPositions(now)
	}
}

// drop removes the commands that gone says are gone, and the queued jobs that nobody waits for any more.
func (b *Bus) drop(gone func(*Command) bool) {
	sieve := func(j *job) {
		before := len(j.waiters)
		j.waiters = slices.DeleteFunc(j.waiters, gone)
		b.held -= before - len(j.waiters)
	}
	if b.flying != nil {
		sieve(b.flying)
	}
	b.queue = slices.DeleteFunc(b.queue, func(j *job) bool {
		sieve(j)
		return len(j.waiters) == 0
	})
}

// end takes the exchange off the wire and answers its waiters.
func (b *Bus) end(now time.Time, j *job, answer func(*Command)) {
	b.flying = nil
	b.free = now.Add(b.config.Gap)
	b.held -= len(j.waiters)
	for _, c := range j.waiters {
		answer(c)
	}
}

func (b *Bus) tellPositions(now time.Time) {
	for i, j := range b.queue {
		if j.position == 0 || j.position == i+1 {
			continue
		}
		j.position = i + 1
		for _, c := range j.waiters {
			b.emit(now, c, meter.Answer{Stage: meter.StageQueued, Position: j.position})
		}
	}
}

// unanswered fails a command whose exchange is on the wire and has no answer.
func (b *Bus) unanswered(now time.Time, c *Command, j *job) {
	err := meter.Errorf(meter.CodeMeterSilent, "meter %s did not answer in time; check its address, its wiring and its battery", c.Asked)
	if len(j.stray) > 0 {
		err = meter.Errorf(meter.CodeBadAnswer, "meter %s was asked, and what came was no valid answer of it: %X; look for a second meter with this address, noise on the bus, or a wrong protocol", c.Asked, j.stray)
	}
	b.failWith(now, c, err, &meter.Frames{Sent: j.exchange.Frame(), Received: slices.Clone(j.stray)})
}

func (b *Bus) rememberSilence(now time.Time, e driver.Exchange) {
	if len(b.silent) == maxSilent {
		b.silent = slices.Delete(b.silent, 0, 1)
	}
	b.silent = append(b.silent, silence{e, now.Add(lateFactor * b.config.ResponseTimeout)})
}

func (b *Bus) forgetSilence(now time.Time) {
	b.silent = slices.DeleteFunc(b.silent, func(s silence) bool { return now.After(s.until) })
}

// remember keeps a reading for MaxAge. When full, the oldest goes.
func (b *Bus) remember(t Target, r recentReading) {
	if b.recent == nil {
		b.recent = make(map[Target]recentReading)
	}
	if _, there := b.recent[t]; !there && len(b.recent) >= maxRecent {
		var oldest Target
		first := true
		for t, r := range b.recent {
			if first || r.at.Before(b.recent[oldest].at) {
				oldest, first = t, false
			}
		}
		delete(b.recent, oldest)
	}
	b.recent[t] = r
}

func answerOf(r recentReading, s meter.Source) meter.Answer {
	return meter.Answer{Source: s, At: r.at, Reading: r.reading, Frames: r.frames, Timing: &meter.Timing{Wire: r.wire.Milliseconds()}}
}

func (b *Bus) done(now time.Time, c *Command, r recentReading, s meter.Source, sentAt time.Time) {
	a := answerOf(r, s)
	a.Stage = meter.StageDone
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
