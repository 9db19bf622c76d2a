// Package scheduler decides what goes over one bus, and when.
//
// A bus (M-Bus, RS-485, a radio cell) is half duplex: while one meter is asked nobody else may talk, and twenty
// people and a nightly job want it at once. The rules:
//
//  1. One exchange at a time, or Config.Window where a concentrator takes several requests. The next frame goes
//     out Config.Gap after the last exchange ended, by its answer or by its timeout.
//  2. Two lanes. Interactive commands go first, but while batch commands wait, every fifth exchange is theirs.
//     Within a lane, first come first served.
//  3. Commands for the same meter share one exchange, also when it is on the wire already: ten clicks are one
//     frame and ten answers. An interactive command that joins a batch exchange takes it over into its lane.
//  4. A command whose deadline passes while it waits is CodeExpired, and nothing is sent after the last waiter's
//     deadline. One whose deadline passes while its exchange is on the wire is CodeMeterSilent; the bus stays
//     taken until the answer or the timeout all the same, because the meter may still talk.
//  5. An answer is only an answer to the exchange that asked. One that belongs to an exchange which timed out is
//     late: counted and dropped. Until it came, or twice the response timeout passed, whatever fits it is taken
//     for it, so that protocols without serial numbers never hand it to the next question. If that leaves the next
//     question without an answer, too, nobody can tell which was which: the meter is left alone until no late answer
//     is expected any more.
//  6. Asking again helps against noise, not against silence: an exchange that timed out after bytes which were no
//     valid answer goes to the head of its lane, at most Config.Retries times and inside the waiters' deadlines.
//  7. A meter that was silent is skipped by the batch lane, at first for a minute, twice as long with every
//     silence, at most half an hour; a click still asks it, and an answer of any kind ends it. Once a bus has
//     answered a few times, a batch exchange waits four times the slowest answer seen lately instead of the
//     whole response timeout. So a dead meter costs a night's job one short timeout.
//  8. At most Config.Queue commands are held; one more is CodeBusy.
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
	Window          int           // exchanges on the wire at once; 0 counts as 1
	Retries         int           // how often noise is answered by asking again
	// Request makes the exchange that reads a meter.
	Request func(meter.ConcentratorID, meter.Address) driver.Exchange
}

// Command is one asker's wish. Its fields are set before Submit and not changed after.
type Command struct {
	ID       meter.CommandID
	Target   Target
	Asked    meter.Address // the meter as the asker spells it
	Lane     meter.Lane
	Arrived  time.Time
	Deadline time.Time
	MaxAge   time.Duration
	// Owner is whatever the caller knows the command by.
	Owner any
	// Emit takes each stage, the terminal one last and exactly once. It must not block and must not call the Bus.
	Emit func(meter.Answer)
}

// job is one exchange to be and the commands that wait for it; the first of them caused it.
type job struct {
	target   Target
	lane     meter.Lane
	waiters  []*Command
	attempts int
	position int // as last told to the waiters

	// While it is on the wire:
	exchange driver.Exchange
	sentAt   time.Time
	until    time.Time // its timeout
	stray    []byte    // what came and answered nothing
	doubtful bool      // what fitted it was taken for a late answer
}

// Counts are what happened on a bus since it was made.
type Counts struct {
	Exchanges uint32 // frames sent; those that are over were one of the next four
	Answered  uint32 // exchanges that got their answer
	Silent    uint32 // exchanges without a byte in time
	Noise     uint32 // exchanges that got bytes, and no answer
	Lost      uint32 // exchanges on the wire when the link went down
	Late      uint32 // answers that came after their exchange had timed out
	Retries   uint32 // exchanges repeated because of noise
	Skipped   uint32 // batch commands refused because their meter was silent shortly before
}

// Bus is the schedule of one bus. Make it with New.
type Bus struct {
	config Config
	lanes  lanes
	flying []*job
	free   time.Time // no frame goes out before
	held   int       // commands in lanes and flying
	silent []silence // exchanges that timed out, whose answers would be late
	pace   pace
	mute   map[Target]muteMeter
	recent recent
	counts Counts
}

// maxStray is how many bytes are kept to show with CodeBadAnswer.
const maxStray = 512

// New returns the schedule of an idle bus.
func New(c Config) *Bus {
	c.Window = max(1, c.Window)
	return &Bus{config: c}
}

// Retime changes the silence between exchanges and the response timeout, from the next exchange on.
func (b *Bus) Retime(gap, responseTimeout time.Duration) {
	b.config.Gap, b.config.ResponseTimeout = gap, responseTimeout
}

// Counts returns what happened so far.
func (b *Bus) Counts() Counts { return b.counts }

// Flying is how many exchanges are on the wire.
func (b *Bus) Flying() int { return len(b.flying) }

// Held is how many commands the bus holds.
func (b *Bus) Held() int { return b.held }

// Submit takes a command in. Its first stage is emitted before Submit returns.
func (b *Bus) Submit(now time.Time, c *Command) {
	if !now.Before(c.Deadline) {
		b.fail(now, c, meter.Errorf(meter.CodeExpired, "the deadline had passed when the command for meter %s arrived; nothing was sent, ask again", c.Asked))
		return
	}
	if r, ok := b.recent.get(c.Target); ok && c.MaxAge > 0 && now.Sub(r.at) <= c.MaxAge {
		r.wire = 0
		b.done(now, c, r, meter.SourceRecent, now)
		return
	}
	if b.held >= b.config.Queue {
		b.fail(now, c, meter.Errorf(meter.CodeBusy, "%d commands wait for concentrator %s already; ask again in a while", b.held, c.Target.Concentrator))
		return
	}
	if err := b.skip(now, c); err != nil {
		b.counts.Skipped++
		b.fail(now, c, err)
		return
	}
	b.held++
	b.emit(now, c, meter.Answer{Stage: meter.StageAccepted})
	if j := find(b.flying, c.Target); j != nil {
		b.board(now, c, j)
		return
	}
	j := b.lanes.join(c)
	if b.ready(now) && b.lanes.next() == j {
		j.position = 0 // it goes out at once; if an answer or a timeout comes first, its waiters are told with the next frame
		return
	}
	told := j.position
	b.tellPositions(now)
	if len(j.waiters) > 1 && j.position == told {
		b.tellPosition(now, c, j)
	}
}

// board adds c to an exchange on the wire. A click is not to fail by the short patience of the batch lane.
func (b *Bus) board(now time.Time, c *Command, j *job) {
	j.waiters = append(j.waiters, c)
	if c.Lane == meter.LaneInteractive {
		j.lane = meter.LaneInteractive
		j.until = j.sentAt.Add(b.timeout(j))
	}
	b.emit(now, c, meter.Answer{Stage: meter.StageSent})
}

func find(jobs []*job, t Target) *job {
	if i := slices.IndexFunc(jobs, func(j *job) bool { return j.target == t }); i >= 0 {
		return jobs[i]
	}
	return nil
}

func (b *Bus) ready(now time.Time) bool {
	return len(b.flying) < b.config.Window && !now.Before(b.free)
}

// Ready reports whether Start has a frame to send.
func (b *Bus) Ready(now time.Time) bool { return b.lanes.next() != nil && b.ready(now) }

// Start returns the frame that is to go out now, if one is.
func (b *Bus) Start(now time.Time) (frame []byte, ok bool) {
	b.expire(now)
	if !b.Ready(now) {
		return nil, false
	}
	j := b.lanes.take()
	j.exchange = b.config.Request(j.target.Concentrator, j.target.Meter)
	j.sentAt, j.until = now, now.Add(b.timeout(j))
	j.attempts++
	j.stray, j.position = nil, 0
	b.flying = append(b.flying, j)
	b.free = now.Add(b.config.Gap)
	b.counts.Exchanges++
	for _, c := range j.waiters {
		b.emit(now, c, meter.Answer{Stage: meter.StageSent})
	}
	b.tellPositions(now)
	return j.exchange.Frame(), true
}

// timeout is how long j may take once it is sent.
func (b *Bus) timeout(j *job) time.Duration {
	if j.lane == meter.LaneBatch {
		return b.pace.patience(b.config.ResponseTimeout)
	}
	return b.config.ResponseTimeout
}

// Advance ends what time has ended: waiters whose deadline passed, exchanges whose timeout passed.
func (b *Bus) Advance(now time.Time) {
	for _, j := range slices.Clone(b.flying) {
		if !now.Before(j.until) {
			b.timedOut(now, j)
		}
	}
	b.expire(now)
}

func (b *Bus) timedOut(now time.Time, j *job) {
	b.rememberSilence(now, j)
	b.land(now, j)
	if len(j.stray) == 0 {
		b.counts.Silent++
		b.wasSilent(now, j.target)
	} else {
		b.counts.Noise++
	}
	if len(j.stray) > 0 && !j.doubtful && j.attempts <= b.config.Retries && j.waitedForAfter(now.Add(b.config.Gap)) {
		b.counts.Retries++
		b.lanes.again(j)
		b.tellPositions(now)
		return
	}
	b.settle(j, func(c *Command) { b.unanswered(now, c, j) })
}

func (j *job) waitedForAfter(t time.Time) bool {
	return slices.ContainsFunc(j.waiters, func(c *Command) bool { return c.Deadline.After(t) })
}

// Wake returns when Advance or Start next has something to do; false if that takes another event.
func (b *Bus) Wake() (at time.Time, ok bool) {
	sooner := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	deadlines := func(j *job) {
		for _, c := range j.waiters {
			sooner(c.Deadline)
		}
	}
	for _, j := range b.flying {
		sooner(j.until)
		deadlines(j)
	}
	if b.lanes.next() != nil && len(b.flying) < b.config.Window {
		sooner(b.free)
	}
	for j := range b.lanes.all() {
		deadlines(j)
	}
	return at, ok
}

// Receipt is what a frame turned out to be.
type Receipt uint8

const (
	Answered Receipt = iota + 1 // it answered an exchange on the wire
	Late                        // it answered one that had timed out
	Foreign                     // it answered nothing we asked
)

// Receive takes a whole valid frame. For Answered with a reading, it returns that as a done answer without an
// id, for whoever keeps readings; else nil.
func (b *Bus) Receive(now time.Time, frame []byte) (Receipt, *meter.Answer) {
	if b.isLate(now, frame) {
		b.counts.Late++
		return Late, nil
	}
	for _, j := range b.flying {
		v := j.exchange.Judge(frame)
		if !v.Answers() {
			continue
		}
		b.answered(now, j)
		frames := &meter.Frames{Sent: j.exchange.Frame(), Received: slices.Clone(frame)}
		if v.Err != nil {
			b.settle(j, func(c *Command) { b.failWith(now, c, v.Err, frames) })
			return Answered, nil
		}
		return Answered, b.read(now, j, v.Reading, frames)
	}
	b.Stray(frame)
	return Foreign, nil
}

// answered takes a job that got its answer off the wire and learns from it.
func (b *Bus) answered(now time.Time, j *job) {
	b.counts.Answered++
	b.pace.saw(now.Sub(j.sentAt))
	delete(b.mute, j.target)
	b.land(now, j)
}

// read answers the waiters of a job with what its meter said.
func (b *Bus) read(now time.Time, j *job, r *meter.Reading, frames *meter.Frames) *meter.Answer {
	said := recentReading{at: now, reading: r, frames: frames, wire: now.Sub(j.sentAt)}
	b.recent.put(j.target, said)
	source := meter.SourceWire
	b.settle(j, func(c *Command) {
		b.done(now, c, said, source, j.sentAt)
		source = meter.SourceShared
	})
	a := said.answer(meter.SourceWire)
	a.Concentrator, a.Meter, a.At = j.target.Concentrator, j.target.Meter, now.UTC().Truncate(time.Millisecond)
	return &a
}

// Stray takes bytes that are no valid frame or no answer. If what is on the wire gets no answer, they show what
// came instead.
func (b *Bus) Stray(raw []byte) {
	for _, j := range b.flying {
		j.stray = append(j.stray, raw[:min(len(raw), maxStray-len(j.stray))]...)
	}
}

// Cancel withdraws a command; it gets CodeCancelled. False if the bus does not hold it.
func (b *Bus) Cancel(now time.Time, c *Command) bool {
	found := false
	b.drop(func(w *Command, _ *job) bool {
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

// Unsent takes every command off the bus whose frame is not on the wire, without a word to its asker, so that
// another bus can have it.
func (b *Bus) Unsent() []*Command {
	var all []*Command
	b.drop(func(c *Command, j *job) bool {
		if j.exchange != nil && slices.Contains(b.flying, j) {
			return false
		}
		all = append(all, c)
		return true
	})
	return all
}

// Close fails every command with err; the link is gone.
func (b *Bus) Close(now time.Time, err *meter.Error) {
	b.drop(func(c *Command, _ *job) bool {
		b.fail(now, c, err)
		return true
	})
	b.counts.Lost += uint32(len(b.flying))
	b.flying = nil
}

// expire fails the waiters whose deadline has passed. An exchange on the wire goes on without them.
func (b *Bus) expire(now time.Time) {
	if b.drop(func(c *Command, j *job) bool {
		if now.Before(c.Deadline) {
			return false
		}
		if j.attempts > 0 { // it is on the wire, or was and waits to be repeated
			b.unanswered(now, c, j)
		} else {
			b.fail(now, c, meter.Errorf(meter.CodeExpired, "the deadline passed while meter %s waited for the bus of concentrator %s; nothing was sent, ask again with more time", c.Asked, c.Target.Concentrator))
		}
		return true
	}) {
		b.tellPositions(now)
	}
}

// drop removes the commands that gone says are gone, and the waiting jobs that nobody waits for any more. It
// reports whether any was removed.
func (b *Bus) drop(gone func(*Command, *job) bool) bool {
	before := b.held
	sieve := func(j *job) {
		n := len(j.waiters)
		j.waiters = slices.DeleteFunc(j.waiters, func(c *Command) bool { return gone(c, j) })
		b.held -= n - len(j.waiters)
	}
	for _, j := range b.flying {
		sieve(j)
	}
	b.lanes.sieve(func(j *job) bool {
		sieve(j)
		return len(j.waiters) == 0
	})
	return b.held != before
}

// land takes a job off the wire.
func (b *Bus) land(now time.Time, j *job) {
	b.flying = slices.DeleteFunc(b.flying, func(f *job) bool { return f == j })
	b.free = now.Add(b.config.Gap)
}

// settle answers all waiters of a job that is over.
func (b *Bus) settle(j *job, answer func(*Command)) {
	b.held -= len(j.waiters)
	for _, c := range j.waiters {
		answer(c)
	}
}
