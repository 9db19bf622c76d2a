package simulator

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Bounds of a town. A meter's number is the last three digits of its address.
const (
	MaxConcentrators = 100_000
	MaxMeters        = 999
)

const firstConcentrator = 101

// Town is how many concentrators there are and how many meters each has behind it.
type Town struct{ Concentrators, Meters int }

// String returns the town as UnmarshalText reads it: "3x20", or "0" if it is empty.
func (t Town) String() string {
	if t.Concentrators == 0 {
		return "0"
	}
	return fmt.Sprintf("%dx%d", t.Concentrators, t.Meters)
}

// MarshalText implements encoding.TextMarshaler.
func (t Town) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads CONCENTRATORSxMETERS such as "3x20"; "0" is a town without concentrators.
func (t *Town) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "0" {
		*t = Town{}
		return nil
	}
	left, right, ok := strings.Cut(text, "x")
	if !ok {
		return fmt.Errorf("the town %.40q is not CONCENTRATORSxMETERS such as 3x20, nor 0 for none", text)
	}
	concentrators, err := strconv.ParseUint(left, 10, 31)
	if err != nil {
		return fmt.Errorf("the town %.40q has no whole number of concentrators before the x", text)
	}
	meters, err := strconv.ParseUint(right, 10, 31)
	if err != nil {
		return fmt.Errorf("the town %.40q has no whole number of meters after the x", text)
	}
	parsed := Town{int(concentrators), int(meters)}
	if err := parsed.validate(); err != nil {
		return err
	}
	*t = parsed
	return nil
}

func (t Town) validate() error {
	if t == (Town{}) {
		return nil
	}
	if t.Concentrators < 1 || t.Concentrators > MaxConcentrators {
		return fmt.Errorf("the town %s has %d concentrators, it must have from 1 to %d (0 alone for no town)", t, t.Concentrators, MaxConcentrators)
	}
	if t.Meters < 1 || t.Meters > MaxMeters {
		return fmt.Errorf("the town %s has %d meters behind each concentrator, it must have from 1 to %d", t, t.Meters, MaxMeters)
	}
	return nil
}

// place is a meter by its numbers: the concentrator from 101, the meter from 1.
type place struct{ concentrator, meter int }

func (p place) concentratorID() meter.ConcentratorID {
	id, err := meter.ParseConcentratorID(strconv.Itoa(p.concentrator))
	if err != nil {
		panic(err) // digits are always a legal number
	}
	return id
}

func (p place) address() meter.Address {
	a, err := meter.ParseAddress(strconv.Itoa(p.concentrator*1000 + p.meter))
	if err != nil {
		panic(err) // digits are always a legal address
	}
	return a
}

// placeOf takes a meter's address apart, with or without leading zeros. It returns false if no town has it.
func placeOf(address string) (place, bool) {
	n, err := strconv.ParseUint(address, 10, 31)
	if err != nil {
		return place{}, false
	}
	p := place{int(n / 1000), int(n % 1000)}
	return p, Town{MaxConcentrators, MaxMeters}.has(p)
}

func numberOf(c meter.ConcentratorID) (int, bool) {
	n, err := strconv.ParseUint(c.String(), 10, 31)
	return int(n), err == nil && c.String()[0] != '0'
}

func (t Town) hasConcentrator(number int) bool {
	return number >= firstConcentrator && number < firstConcentrator+t.Concentrators
}

func (t Town) has(p place) bool {
	return t.hasConcentrator(p.concentrator) && p.meter >= 1 && p.meter <= t.Meters
}
