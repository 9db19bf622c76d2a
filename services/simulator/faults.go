package simulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Faults are what goes wrong between a meter and the gateway, each at a rate from 0 (never) to 1 (at every
// request). Which requests they hit follows from the seed, the concentrator and the order of its requests alone;
// a rate that changes leaves the others' hits where they were.
type Faults struct {
	Drop       float64       `help:"Share of requests that a meter does not answer." placeholder:"RATE" default:"0"`
	Late       float64       `help:"Share of answers that come late." placeholder:"RATE" default:"0"`
	LateBy     time.Duration `help:"How late they come; beyond the gateway's timeout they meet the next exchange." default:"5s"`
	Wrong      float64       `help:"Share of requests that another meter answers." placeholder:"RATE" default:"0"`
	Corrupt    float64       `help:"Share of answers with one byte changed." placeholder:"RATE" default:"0"`
	Duplicate  float64       `help:"Share of answers that come twice." placeholder:"RATE" default:"0"`
	Garbage    float64       `help:"Share of answers with random bytes before and after them." placeholder:"RATE" default:"0"`
	HangUp     float64       `help:"Share of answers that break off when the link goes down." placeholder:"RATE" default:"0"`
	Split      float64       `help:"Share of answers that come one byte at a time." placeholder:"RATE" default:"0"`
	SplitPause time.Duration `help:"Pause between those bytes." default:"2ms"`
	Unasked    time.Duration `help:"How often each concentrator sends a reading that nobody asked for, 0 for never." default:"0s"`
}

func (f Faults) validate() error {
	for _, r := range []struct {
		name string
		rate float64
	}{
		{"drop", f.Drop}, {"late", f.Late}, {"wrong", f.Wrong}, {"corrupt", f.Corrupt},
		{"duplicate", f.Duplicate}, {"garbage", f.Garbage}, {"hang-up", f.HangUp}, {"split", f.Split},
	} {
		if !(r.rate >= 0 && r.rate <= 1) {
			return fmt.Errorf("the fault rate %s is %g, it must be from 0 to 1", r.name, r.rate)
		}
	}
	if f.Late > 0 && f.LateBy <= 0 {
		return errors.New("late answers need late-by, how late they come")
	}
	if f.LateBy < 0 || f.SplitPause < 0 || f.Unasked < 0 {
		return errors.New("the fault durations late-by, split-pause and unasked cannot be negative")
	}
	return nil
}

// misfortune is what befalls one request.
type misfortune struct {
	drop, late, wrong, corrupt, duplicate, garbage, hangUp, split bool

	detail uint64 // seeds which byte, which garbage
}

// draw takes the same number of values from r whatever the rates, so that they do not disturb each other.
func (f Faults) draw(r rand.Source) misfortune {
	hit := func(rate float64) bool { return float64(r.Uint64()>>11)/(1<<53) < rate }
	return misfortune{
		drop: hit(f.Drop), late: hit(f.Late), wrong: hit(f.Wrong), corrupt: hit(f.Corrupt),
		duplicate: hit(f.Duplicate), garbage: hit(f.Garbage), hangUp: hit(f.HangUp), split: hit(f.Split),
		detail: r.Uint64(),
	}
}

const maxGarbage = 16

// distort returns the bytes that reach the wire instead of a frame that begins after preamble bytes FE.
func (m misfortune) distort(frame []byte, preamble int) []byte {
	if !m.corrupt && !m.duplicate && !m.garbage && !m.hangUp {
		return frame
	}
	r := rand.New(rand.NewPCG(m.detail, 0))
	if m.corrupt {
		// Not in the preamble, where it would harm nothing.
		at := preamble + r.IntN(len(frame)-preamble)
		frame[at] ^= byte(1 + r.IntN(255))
	}
	if m.duplicate {
		frame = append(frame, frame...)
	}
	if m.garbage {
		frame = append(noise(r), append(frame, noise(r)...)...)
	}
	if m.hangUp {
		frame = frame[:1+r.IntN(len(frame)-1)]
	}
	return frame
}

func noise(r *rand.Rand) []byte {
	b := make([]byte, 1+r.IntN(maxGarbage))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
