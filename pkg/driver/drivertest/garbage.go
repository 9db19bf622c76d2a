package drivertest

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// garbageRounds keeps the test well below a second; each round has its own seed, which a failure names.
const garbageRounds = 300

// testGarbage sends what no peer should: random bytes, and pieces of what the protocol knows in random order.
// The stream's own checks hold for each of them; then silence, and an answer must come through.
func testGarbage(t *testing.T, c Case) {
	for seed := range uint64(garbageRounds) {
		s := newSetup(t, c)
		r := rand.New(rand.NewPCG(seed, 0))
		x, other := s.ask(0), s.ask(1)
		answer := c.Answer(x.Frame(), someVolume)
		known := [][]byte{answer, x.Frame(), c.Answer(other.Frame(), otherVolume)}
		for _, text := range slices.Concat(c.Noise, c.Registrations, c.Heartbeats) {
			known = append(known, []byte(text))
		}
		for range 20 {
			s.receive(piece(r, known))
		}
		s.silence()
		events := s.all(answer)
		if len(framesIn(events)) != 1 {
			t.Fatalf("seed %d: behind garbage the answer is %s", seed, describe(events))
		}
		s.answered(events, x, someVolume)
	}
}

// piece is random bytes, a known text, or a stretch of one, some of it damaged.
func piece(r *rand.Rand, known [][]byte) []byte {
	if r.IntN(4) == 0 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	b := append([]byte(nil), known[r.IntN(len(known))]...)
	if r.IntN(2) == 0 {
		from := r.IntN(len(b))
		b = b[from : from+r.IntN(len(b)-from)+1]
	}
	if r.IntN(4) == 0 {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	}
	return b
}
