package cjt188

import "bytes"

// A DTU sends its heartbeat when its timer says so, also between two bytes of a frame. What a heartbeat's
// bytes are inside a frame cannot be told from them: 00 and FE are common in both. So the readings that are
// likely are tried and the checksum decides: link.frame takes the bytes as they stand, split takes them
// without every heartbeat (a slow frame, several heartbeats), then without each single one (a heartbeat whose
// bytes also occur in the frame).

// maybeSplit reports whether a heartbeat, or the beginning of one at the end, stands behind the first byte of b.
func (l *link) maybeSplit(b []byte) bool {
	for _, h := range l.heartbeats {
		if bytes.Contains(b[1:], h) {
			return true
		}
		for size := min(len(h), len(b)) - 1; size > 0; size-- {
			if bytes.HasSuffix(b[1:], h[:size]) {
				return true
			}
		}
	}
	return false
}

// split returns the frame that b, which begins with 68 and has at most window bytes, holds once heartbeats are
// taken out, and how many bytes of b it takes. n = 0 and more: it may still become one.
func (l *link) split(b []byte) (frame []byte, n int, more bool) {
	var rest stripped
	l.strip(b, &rest)
	n, more = whole(rest.bytes[:rest.n])
	if n > 0 {
		return bytes.Clone(rest.bytes[:n]), int(rest.origin[n-1]) + 1, false
	}
	var sums [window + 1]byte // at i, the sum of the first i bytes
	for i, c := range b {
		sums[i+1] = sums[i] + c
	}
	for _, h := range l.heartbeats {
		for at := 1; at < len(b); at++ {
			i := bytes.Index(b[at:], h)
			if i < 0 {
				break
			}
			at += i
			n, m := wholeWithout(b, &sums, at, len(h))
			if n > 0 {
				return append(bytes.Clone(b[:at]), b[at+len(h):n]...), n, false
			}
			more = more || m
		}
	}
	return nil, 0, more
}

// stripped is a stretch of bytes without heartbeats. Its arrays are as large as can be so that it needs no heap:
// a hostile peer could have it made for every byte.
type stripped struct {
	n      int
	bytes  [window]byte
	origin [window]uint8 // where each byte stood
}

// strip leaves out the heartbeats in b, and the beginning of one at its end, for the rest of that may come.
func (l *link) strip(b []byte, rest *stripped) {
	for i := 0; i < len(b); {
		n, more := 0, false
		if i > 0 {
			n, more = l.heartbeat(b[i:])
		}
		if more {
			return
		}
		if n == 0 {
			rest.bytes[rest.n], rest.origin[rest.n] = b[i], uint8(i)
			rest.n++
			n = 1
		}
		i += n
	}
}

// wholeWithout is whole for b without the size bytes at position at; n counts them. The sums make its cost
// independent of the frame's length.
func wholeWithout(b []byte, sums *[window + 1]byte, at, size int) (n int, more bool) {
	place := func(i int) int { // where in b the byte i of the rest stands
		if i < at {
			return i
		}
		return i + size
	}
	if place(lengthAt) >= len(b) {
		return 0, true
	}
	l := int(b[place(lengthAt)])
	if l < 1 || l > maxData {
		return 0, false
	}
	last := l + overhead - 1
	if place(last) == last {
		return 0, false // the heartbeat is behind the frame
	}
	if place(last) >= len(b) {
		return 0, true
	}
	total := sums[place(last-2)+1]
	if place(last-2) >= at {
		total -= sums[at+size] - sums[at]
	}
	if b[place(last)] != end || b[place(last-1)] != total {
		return 0, false
	}
	return place(last) + 1, false
}
