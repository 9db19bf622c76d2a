package simulator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestTownText(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Town
		err        string // part of the error; empty for none
	}{
		{"small", "3x20", Town{3, 20}, ""},
		{"none", "0", Town{}, ""},
		{"one", "1x1", Town{1, 1}, ""},
		{"largest", "100000x999", Town{100_000, 999}, ""},
		{"too many concentrators", "100001x1", Town{}, "from 1 to 100000"},
		{"too many meters", "1x1000", Town{}, "from 1 to 999"},
		{"no concentrators but meters", "0x5", Town{}, "from 1 to 100000"},
		{"concentrators without meters", "5x0", Town{}, "from 1 to 999"},
		{"beyond any integer", "99999999999999999999x1", Town{}, "before the x"},
		{"no x", "320", Town{}, "CONCENTRATORSxMETERS"},
		{"empty", "", Town{}, "CONCENTRATORSxMETERS"},
		{"negative", "-1x20", Town{}, "before the x"},
		{"letters", "3xmany", Town{}, "after the x"},
		{"two x", "3x4x5", Town{}, "after the x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got Town
			err := got.UnmarshalText([]byte(row.text))
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Fatalf("error %v, want one with %q", err, row.err)
			}
			if got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
			if err == nil && got.String() != row.text {
				t.Errorf("%q comes back as %q", row.text, got.String())
			}
		})
	}
}

func FuzzTownText(f *testing.F) {
	for _, seed := range []string{"3x20", "0", "0x0", "100000x999", "x", "+1x1", "01x1", "3x20 ", "１x１"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var town, again Town
		if town.UnmarshalText([]byte(text)) != nil {
			if town != (Town{}) {
				t.Fatalf("%q is refused and yet gives %v", text, town)
			}
			return
		}
		if err := town.validate(); err != nil {
			t.Fatalf("%q gives a town that does not stand: %v", text, err)
		}
		if err := again.UnmarshalText([]byte(town.String())); err != nil || again != town {
			t.Fatalf("%q gives %v, whose text gives %v, %v", text, town, again, err)
		}
	})
}

func TestPlaceOf(t *testing.T) {
	for _, row := range []struct {
		name, address string
		want          place
		ok            bool
	}{
		{"first", "101001", place{101, 1}, true},
		{"padded", "00000000101020", place{101, 20}, true},
		{"last", "100100999", place{100_100, 999}, true},
		{"meter zero", "101000", place{}, false},
		{"concentrator below the first", "100001", place{}, false},
		{"concentrator above the last", "100101001", place{}, false},
		{"fourteen digits", "99999999999999", place{}, false},
		{"letters", "10100A", place{}, false},
		{"zeros", "0000", place{}, false},
		{"signed", "+101001", place{}, false},
		{"empty", "", place{}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, ok := placeOf(row.address)
			if ok != row.ok || ok && got != row.want {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

// apart is the closest that two meters of a town come to each other, in steps of 0.01 m³.
func apart(town Town, at time.Time) uint32 {
	var all []uint32
	for c := range town.Concentrators {
		for m := range town.Meters {
			all = append(all, place{firstConcentrator + c, m + 1}.steps(at))
		}
	}
	slices.Sort(all)
	closest := uint32(registerSteps)
	for i := 1; i < len(all); i++ {
		closest = min(closest, all[i]-all[i-1])
	}
	return closest
}

func TestVolumesTellMetersApart(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		town    Town
		atLeast uint32
	}{
		{Town{3, 20}, 38_000},
		{Town{1, 999}, 38_000},
		{Town{200, 20}, 5_000},
		{Town{10_000, 20}, 200},
	} {
		t.Run(row.town.String(), func(t *testing.T) {
			for _, years := range []int{0, 60} {
				if got := apart(row.town, now.AddDate(years, 0, 0)); got < row.atLeast {
					t.Errorf("in %d years two meters are %d steps apart, want at least %d", years, got, row.atLeast)
				}
			}
		})
	}
}

func TestVolumeGrowsByOneStepInFiveMinutes(t *testing.T) {
	c, m := concentratorID(t, "101"), address(t, "101007")
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	last, grown := Volume(c, m, at), 0
	for range 120 {
		at = at.Add(30 * time.Second)
		next := Volume(c, m, at)
		switch next.Cmp(last) {
		case -1:
			t.Fatalf("at %s the volume fell from %s to %s", at, last, next)
		case 1:
			grown++
		}
		last = next
	}
	if grown != 12 {
		t.Errorf("it grew %d times within an hour, want 12", grown)
	}
}

func TestVolume(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	for _, row := range []struct{ name, concentrator, meter, want string }{
		{"the first meter", "101", "101001", "28288.32"},
		{"padded with zeros", "101", "00000000101001", "28288.32"},
		{"its neighbour", "101", "101002", "584518.93"},
		{"the same number elsewhere", "102", "102001", "402667.71"},
		{"another concentrator's meter", "102", "101001", "0.00"},
		{"no such meter", "101", "101000", "0.00"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := Volume(concentratorID(t, row.concentrator), address(t, row.meter), at).String(); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestSettlementIsTheVolumeAtTheStartOfTheMonth(t *testing.T) {
	zone := time.FixedZone("UTC+8", 8*3600)
	p := place{102, 3}
	// 1 November in the meter's own zone is still October in UTC.
	got := p.settlementSteps(time.Date(2026, 11, 22, 16, 0, 0, 0, zone))
	if want := p.steps(time.Date(2026, 10, 31, 16, 0, 0, 0, time.UTC)); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestDirectory(t *testing.T) {
	entries := Town{30, 999}.Directory()
	if len(entries) != 30*999 {
		t.Fatalf("%d meters are listed, want %d", len(entries), 30*999)
	}
	meters := make(map[string]meter.Address)
	for _, e := range entries {
		if other, taken := meters[e.Name]; taken {
			t.Fatalf("the name %s stands for %s and %s", e.Name, other, e.Meter)
		}
		meters[e.Name] = e.Meter
	}
	for _, row := range []struct {
		at   int
		want Entry
	}{
		{0, Entry{concentratorID(t, "101"), address(t, "101001"), "幸福小区 1栋 1单元 101"}},
		{9, Entry{concentratorID(t, "101"), address(t, "101010"), "幸福小区 1栋 1单元 502"}},
		{19, Entry{concentratorID(t, "101"), address(t, "101020"), "幸福小区 1栋 2单元 402"}},
		{999, Entry{concentratorID(t, "102"), address(t, "102001"), "阳光花园 1栋 1单元 101"}},
		{24 * 999, Entry{concentratorID(t, "125"), address(t, "125001"), "幸福小区 22栋 1单元 101"}},
	} {
		if entries[row.at] != row.want {
			t.Errorf("entry %d is %v, want %v", row.at, entries[row.at], row.want)
		}
	}
}

func address(t testing.TB, s string) meter.Address {
	t.Helper()
	a, err := meter.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func concentratorID(t testing.TB, s string) meter.ConcentratorID {
	t.Helper()
	c, err := meter.ParseConcentratorID(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
