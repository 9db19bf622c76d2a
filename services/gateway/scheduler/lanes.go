package scheduler

import (
	"iter"
	"slices"

	"github.com/dianchao/dianchao/pkg/meter"
)

// lanes are the jobs that wait, interactive ones and batch ones.
type lanes struct {
	interactive []*job
	batch       []*job
	streak      int // interactive exchanges in a row while batch jobs waited
}

// maxStreak interactive exchanges may overtake waiting batch jobs in a row; then one batch job goes.
const maxStreak = 4

// join adds c to the job for its meter, or makes one. An interactive command takes a batch job over.
func (l *lanes) join(c *Command) *job {
	if j := find(l.interactive, c.Target); j != nil {
		j.waiters = append(j.waiters, c)
		return j
	}
	j := find(l.batch, c.Target)
	switch {
	case j == nil:
		j = &job{target: c.Target, lane: c.Lane}
		l.add(j)
	case c.Lane == meter.LaneInteractive:
		l.batch = slices.DeleteFunc(l.batch, func(b *job) bool { return b == j })
		j.lane = meter.LaneInteractive
		l.add(j)
	}
	j.waiters = append(j.waiters, c)
	return j
}

func (l *lanes) add(j *job) {
	if j.lane == meter.LaneBatch {
		l.batch = append(l.batch, j)
	} else {
		l.interactive = append(l.interactive, j)
	}
}

// again puts a job that is to be repeated at the head of its lane.
func (l *lanes) again(j *job) {
	if j.lane == meter.LaneBatch {
		l.batch = slices.Insert(l.batch, 0, j)
	} else {
		l.interactive = slices.Insert(l.interactive, 0, j)
	}
}

// next is the job whose turn it is; nil if none waits.
func (l *lanes) next() *job {
	for j := range l.all() {
		return j
	}
	return nil
}

// take removes the job whose turn it is.
func (l *lanes) take() *job {
	j := l.next()
	if j.lane == meter.LaneBatch {
		l.batch = slices.Delete(l.batch, 0, 1)
		l.streak = 0
		return j
	}
	l.interactive = slices.Delete(l.interactive, 0, 1)
	if len(l.batch) > 0 {
		l.streak++
	} else {
		l.streak = 0
	}
	return j
}

// all yields the jobs in the order in which they would be served if nothing else came.
func (l *lanes) all() iter.Seq[*job] {
	return func(yield func(*job) bool) {
		interactive, batch, streak := l.interactive, l.batch, l.streak
		for len(interactive)+len(batch) > 0 {
			lane := &interactive
			if len(interactive) == 0 || len(batch) > 0 && streak >= maxStreak {
				lane, streak = &batch, 0
			} else {
				streak++
			}
			if !yield((*lane)[0]) {
				return
			}
			*lane = (*lane)[1:]
		}
	}
}

// sieve removes the jobs that gone says are gone.
func (l *lanes) sieve(gone func(*job) bool) {
	l.interactive = slices.DeleteFunc(l.interactive, gone)
	l.batch = slices.DeleteFunc(l.batch, gone)
}
