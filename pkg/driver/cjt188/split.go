package cjt188

import "bytes"

// A DTU sends its heartbeat when its timer says so, also between two bytes of a frame. What a heartbeat's
// bytes are inside a frame cannot be told from them: 00 and FE are common in both. So the readings that are
// likely are tried and the checksum decides: link.frame takes the bytes as they stand, split takes them
// without every heartbeat (a slow frame, several heartbeats), then without each single one (a heartbeat whose
// bytes also occur in the frame).

// split returns the frame that b, which begins with 68, holds once heartbeats are taken out, and how many
// bytes of b it takes. n = 0 and more: it may still become one.
func (l *link) split(b []byte) (frame []byte, n int, more bool) {
	rest, origin := l.withoutHeartbeats(b)
	n, more = whole(rest)
	if n > 0 {
		return rest[:n], origin[n-1] + 1, false
	}
	sums := prefixSums(b)
	for _, h := range l.heartbeats {
		for at := 1; at < len(b); at++ {
			i := bytes.Index(b[at:], h)
			if i < 0 {
				break
			}
			at += i
			n, m := wholeWithout(b, sums, at, len(h))
			if n > 0 {
				return append(b[:at:at], b[at+len(h):n]...), n, false
			}
			more = more || m
		}
	}
	return nil, 0, more
}

// withoutHeartbeats returns b without the heartbeats in it, and without the beginning of one at its end, for
// the rest of that may come. origin says where in b each byte stood.
func (l *link) withoutHeartbeats(b []byte) (rest []byte, origin []int) {
	rest, origin = make([]byte, 0, len(b)), make([]int, 0, len(b))
	for i := 0; i < len(b); {
		n, more := 0, false
		if i > 0 {
			n, more = l.heartbeat(b[i:])
		}
		if more {
			return rest, origin
		}
		if n == 0 {
			rest, origin = append(rest, b[i]), append(origin, i)
			n = 1
		}
		i += n
	}
	return rest, origin
}

// wholeWithout is whole for b without the size bytes at position at; n counts them. The sums make its cost
// independent of the frame's length, for a hostile peer could make every byte a heartbeat.
func wholeWithout(b []byte, sums []byte, at, size int) (n int, more bool) {
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

// prefixSums returns at i the sum of the first i bytes of b.
func prefixSums(b []byte) []byte {
	sums := make([]byte, len(b)+1)
	for i, c := range b {
		sums[i+1] = sums[i] + c
	}
	return sums
}
