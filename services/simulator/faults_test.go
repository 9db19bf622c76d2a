package simulator

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestFaultsValidate(t *testing.T) {
	for _, row := range []struct {
		name   string
		faults Faults
		err    string
	}{
		{"none", Faults{}, ""},
		{"all, always", Faults{Drop: 1, Late: 1, LateBy: time.Second, Wrong: 1, Corrupt: 1, Duplicate: 1, Garbage: 1, HangUp: 1, Split: 1}, ""},
		{"rate above one", Faults{Drop: 1.01}, "drop"},
		{"rate below zero", Faults{HangUp: -0.1}, "hang-up"},
		{"rate that is no number", Faults{Split: math.NaN()}, "split"},
		{"late without saying how late", Faults{Late: 0.5}, "late-by"},
		{"negative pause", Faults{SplitPause: -1}, "split-pause"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.faults.validate()
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("error %v, want one with %q", err, row.err)
			}
		})
	}
}

func TestFaultsHitAtTheirRate(t *testing.T) {
	const requests = 20_000
	faults := Faults{Drop: 0.25, Corrupt: 1}
	draws := rand.NewPCG(1, 101)
	drops := 0
	for range requests {
		m := faults.draw(draws)
		if m.drop {
			drops++
		}
		if !m.corrupt || m.late || m.wrong || m.duplicate || m.garbage || m.hangUp || m.split {
			t.Fatalf("a rate of 1 must always hit, one of 0 never: %+v", m)
		}
	}
	if share := float64(drops) / requests; share < 0.23 || share > 0.27 {
		t.Errorf("%.3f of the requests were dropped, want 0.25", share)
	}
}

func TestFaultsFollowFromSeedAndOrderAlone(t *testing.T) {
	hits := func(f Faults, seed, concentrator uint64) (drops []bool) {
		draws := rand.NewPCG(seed, concentrator)
		for range 200 {
			drops = append(drops, f.draw(draws).drop)
		}
		return drops
	}
	same := func(a, b []bool) bool {
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	base := hits(Faults{Drop: 0.5}, 1, 101)
	if !same(base, hits(Faults{Drop: 0.5}, 1, 101)) {
		t.Error("the same seed gave other faults")
	}
	if !same(base, hits(Faults{Drop: 0.5, Garbage: 1, Corrupt: 0.3}, 1, 101)) {
		t.Error("other rates moved the drops")
	}
	if same(base, hits(Faults{Drop: 0.5}, 2, 101)) {
		t.Error("another seed gave the same faults")
	}
	if same(base, hits(Faults{Drop: 0.5}, 1, 102)) {
		t.Error("another concentrator got the same faults")
	}
}

func TestDistort(t *testing.T) {
	clean := []byte{0xFE, 0xFE, 0x68, 1, 2, 3, 4, 0x16}
	for detail := range uint64(300) {
		distort := func(m misfortune) []byte {
			m.detail = detail
			got := m.distort(bytes.Clone(clean), 2)
			if !bytes.Equal(got, m.distort(bytes.Clone(clean), 2)) {
				t.Fatalf("%+v distorts differently the second time", m)
			}
			return got
		}
		if got := distort(misfortune{drop: true, late: true, wrong: true, split: true}); !bytes.Equal(got, clean) {
			t.Fatalf("% X: these do not change the bytes", got)
		}
		corrupt := distort(misfortune{corrupt: true})
		changed := 0
		for i := range clean {
			if corrupt[i] != clean[i] {
				changed++
			}
		}
		if len(corrupt) != len(clean) || changed != 1 || !bytes.Equal(corrupt[:2], clean[:2]) {
			t.Fatalf("% X: want one byte changed, not in the preamble", corrupt)
		}
		if got := distort(misfortune{duplicate: true}); !bytes.Equal(got, append(bytes.Clone(clean), clean...)) {
			t.Fatalf("% X: want it twice", got)
		}
		garbage := distort(misfortune{garbage: true})
		before := bytes.Index(garbage, clean)
		after := len(garbage) - before - len(clean)
		if before < 1 || before > maxGarbage || after < 1 || after > maxGarbage {
			t.Fatalf("% X: want 1 to %d bytes around it", garbage, maxGarbage)
		}
		broken := distort(misfortune{hangUp: true})
		if len(broken) == 0 || len(broken) >= len(clean) || !bytes.HasPrefix(clean, broken) {
			t.Fatalf("% X: want a part of it from the start", broken)
		}
	}
}
