package cjt188

import (
	"bytes"

	"github.com/dianchao/dianchao/pkg/driver"
)

// window is how many bytes can matter to what stands first: a frame with its preamble and two of the longest
// heartbeats in it, or a registration packet. It bounds what Next waits for, and so the work a hostile peer can cause.
const window = maxFillFE + maxFrame + 2*maxHeartbeat

// link reads what one concentrator sends.
type link struct {
	driver     *Driver
	registers  bool
	heartbeats [][]byte // longest first
	serial     byte     // SER of the latest request
}

// Next implements driver.Link. The Raw of a frame is from 68 to 16, without preamble.
func (l *link) Next(b []byte, quiet bool) (driver.Event, int) {
	if len(b) == 0 {
		return driver.Event{}, 0
	}
	e, n, wait := l.look(b, quiet)
	if n > 0 {
		return e, n
	}
	if !wait {
		n = l.noise(b, quiet)
		return driver.Event{Kind: driver.Noise, Raw: b[:n]}, n
	}
	// A 68 in noise looks like the start of a frame for as long as its would-be L says. It must not hide the
	// answer behind it: what is before a whole frame is judged as if nothing more came.
	if before := l.nextFrame(b); before > 0 {
		return l.Next(b[:before], true)
	}
	return driver.Event{}, 0
}

// look says what stands first in b. n = 0 and wait: more bytes are needed to tell; n = 0 and not wait: nothing
// this protocol knows.
func (l *link) look(b []byte, final bool) (e driver.Event, n int, wait bool) {
	if len(b) >= window {
		b, final = b[:window], true
	}
	frame, n, more := l.frame(b)
	if n > 0 {
		return driver.Event{Kind: driver.Frame, Raw: frame}, n, false
	}
	if more && !final {
		return e, 0, true
	}
	if l.registers {
		id, n, more := l.driver.Registration.match(b, final)
		if n > 0 || more {
			return driver.Event{Kind: driver.Registration, Raw: b[:n], Concentrator: id}, n, more
		}
	}
	n, more = l.heartbeat(b)
	if more && !final {
		return e, 0, true
	}
	return driver.Event{Kind: driver.Heartbeat, Raw: b[:n]}, n, false
}

// noise returns how many bytes stand before the next that could be something. The first is known to be nothing.
func (l *link) noise(b []byte, final bool) int {
	for i := 1; i < len(b); i++ {
		if _, n, wait := l.look(b[i:], final); n > 0 || wait {
			return i
		}
	}
	return len(b)
}

// nextFrame returns where behind the first byte a whole frame begins; 0 if none does.
func (l *link) nextFrame(b []byte) int {
	last := bytes.LastIndexByte(b, end)
	for i := 1; i+overhead <= last; i++ {
		if _, n, _ := l.frame(b[i:]); n > 0 {
			return i
		}
	}
	return 0
}

// heartbeat returns the size of the longest heartbeat at the start of b. more: b is the beginning of one.
func (l *link) heartbeat(b []byte) (n int, more bool) {
	for _, h := range l.heartbeats {
		if n == 0 && bytes.HasPrefix(b, h) {
			n = len(h)
		}
		more = more || len(b) < len(h) && bytes.HasPrefix(h, b)
	}
	return n, more
}

// frame returns the frame at the start of b, behind its preamble, without heartbeats that split it, and how
// many bytes all that takes. n = 0 and more: it may still become one.
func (l *link) frame(b []byte) (frame []byte, n int, more bool) {
	fill := countPreamble(b)
	if fill > maxFillFE {
		return nil, 0, false
	}
	if fill == len(b) {
		return nil, 0, true
	}
	b = b[fill:]
	if b[0] != start {
		return nil, 0, false
	}
	b = b[:min(len(b), window-fill)]
	n, more = whole(b)
	if n > 0 {
		return b[:n], fill + n, false
	}
	if !l.maybeSplit(b) {
		return nil, 0, more
	}
	frame, n, splitMore := l.split(b)
	if n > 0 {
		return frame, fill + n, false
	}
	return nil, 0, more || splitMore
}
