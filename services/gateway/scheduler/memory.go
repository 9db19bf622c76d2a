package scheduler

import (
	"slices"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// silence is an exchange that timed out. Its answer may still come.
type silence struct {
	exchange driver.Exchange
	target   Target
	sentAt   time.Time
	until    time.Time // by then it is not expected any more
	doubtful bool      // it may have come already, and been taken for an earlier one's
}

const (
	// maxSilent is how many exchanges that timed out are remembered: as many as the batch lane's shortest patience
	// lets time out one by one while the late answers of the longest response timeout (meter.MaxTimeout) are awaited.
	maxSilent = 512
	// lateFactor × the response timeout after its end, an exchange's answer is not expected any more.
	lateFactor = 2
)

func (b *Bus) rememberSilence(now time.Time, j *job) {
	b.forgetSilence(now)
	if len(b.silent) == maxSilent {
		b.silent = slices.Delete(b.silent, 0, 1)
	}
	b.silent = append(b.silent, silence{
		exchange: j.exchange, target: j.target, sentAt: j.sentAt, doubtful: j.doubtful,
		until: now.Add(lateFactor * b.config.ResponseTimeout),
	})
}

// forgetSilence lets go of exchanges whose answer is not expected any more.
func (b *Bus) forgetSilence(now time.Time) {
	b.silent = slices.DeleteFunc(b.silent, func(s silence) bool { return now.After(s.until) })
}

// isLate reports whether frame answers an exchange that timed out; each has one answer at most.
func (b *Bus) isLate(now time.Time, frame []byte) bool {
	b.forgetSilence(now)
	for i, s := range b.silent {
		if s.exchange.Judge(frame).Answers() {
			b.silent = slices.Delete(b.silent, i, i+1)
			b.pace.saw(now.Sub(s.sentAt)) // slow, but alive
			delete(b.mute, s.target)
			if j := find(b.flying, s.target); j != nil && j.exchange.Judge(frame).Answers() {
				j.doubtful = true
			}
			return true
		}
	}
	return false
}

// muteMeter is a meter that did not answer.
type muteMeter struct {
	since time.Time     // of its last silence
	skip  time.Duration // the batch lane leaves it alone for this long after
}

const (
	firstSkip = time.Minute
	mostSkip  = 30 * time.Minute
	maxMute   = 1024 // mute meters remembered; beyond it one more is not skipped
)

func (b *Bus) wasSilent(now time.Time, t Target) {
	m, known := b.mute[t]
	if !known && len(b.mute) >= maxMute {
		return
	}
	if b.mute == nil {
		b.mute = make(map[Target]muteMeter)
	}
	b.mute[t] = muteMeter{now, min(max(firstSkip, 2*m.skip), mostSkip)}
}

// skip returns why a command is not even tried; nil if it is.
func (b *Bus) skip(now time.Time, c *Command) *meter.Error {
	b.forgetSilence(now)
	for _, s := range b.silent {
		if s.doubtful && s.target == c.Target {
			return meter.Errorf(meter.CodeMeterSilent, "meter %s answered too late, and its protocol cannot tell a late answer from a new one; ask again in %s, when none is expected any more",
				c.Asked, s.until.Sub(now).Round(time.Second)+time.Second)
		}
	}
	m, known := b.mute[c.Target]
	if c.Lane != meter.LaneBatch || !known || now.Sub(m.since) >= m.skip {
		return nil
	}
	return meter.Errorf(meter.CodeMeterSilent, "meter %s did not answer %s ago, batch reads leave it alone for another %s; a single read still asks it",
		c.Asked, now.Sub(m.since).Round(time.Second), (m.skip - now.Sub(m.since)).Round(time.Second))
}

// pace is how fast this bus has answered lately.
type pace struct {
	seen    []time.Duration // a ring
	next    int
	average time.Duration // exponentially weighted
}

const (
	paceWindow      = 32
	paceTrust       = 8 // answers before it is acted upon
	patienceFactor  = 4
	leastPatience   = 500 * time.Millisecond
	averageFraction = 8
)

func (p *pace) saw(d time.Duration) {
	if len(p.seen) == 0 {
		p.average = d
	}
	p.average += (d - p.average) / averageFraction
	if len(p.seen) < paceWindow {
		p.seen = append(p.seen, d)
		return
	}
	p.seen[p.next] = d
	p.next = (p.next + 1) % paceWindow
}

// usual is how long an exchange takes; false until one was seen.
func (p *pace) usual() (time.Duration, bool) { return p.average, len(p.seen) > 0 }

// patience is how long a batch exchange waits for its answer, at most limit.
func (p *pace) patience(limit time.Duration) time.Duration {
	if len(p.seen) < paceTrust {
		return limit
	}
	return min(limit, max(leastPatience, patienceFactor*slices.Max(p.seen)))
}

// recent are the last readings, for commands with a MaxAge.
type recent struct{ readings map[Target]recentReading }

type recentReading struct {
	at      time.Time
	reading *meter.Reading
	frames  *meter.Frames
	wire    time.Duration
}

// maxRecent is how many readings a bus keeps; more meters than that do not share a bus.
const maxRecent = 1024

func (r *recent) get(t Target) (recentReading, bool) {
	said, ok := r.readings[t]
	return said, ok
}

// put keeps a reading. When full, the oldest goes.
func (r *recent) put(t Target, said recentReading) {
	if r.readings == nil {
		r.readings = make(map[Target]recentReading)
	}
	if _, there := r.readings[t]; !there && len(r.readings) >= maxRecent {
		var oldest Target
		first := true
		for t, said := range r.readings {
			if first || said.at.Before(r.readings[oldest].at) {
				oldest, first = t, false
			}
		}
		delete(r.readings, oldest)
	}
	r.readings[t] = said
}

func (r recentReading) answer(s meter.Source) meter.Answer {
	return meter.Answer{
		Stage: meter.StageDone, Source: s, At: r.at, Reading: r.reading, Frames: r.frames,
		Timing: &meter.Timing{Wire: r.wire.Milliseconds()},
	}
}
