package cjt188

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Answer returns the meter's answer to f, a request for the current data, in the layout of water and gas. DI
// and SER are repeated from the request; a null field is filled with FF. RawStatus, if it has two bytes, goes
// out as it is, else Status does, FF where it has nothing. It returns an error if f is no such request or a volume does not fit into
// six digits and two decimals.
func (f Frame) Answer(r meter.Reading) (Frame, error) {
	if di, _ := f.DI(); f.Control != Read || di != CurrentData {
		return Frame{}, fmt.Errorf("control %02X with DI %s is no request for current data", f.Control, di)
	}
	data := append(make([]byte, 0, waterLength), f.Data[:3]...)
	for _, v := range []*meter.Decimal{r.Volume, r.Settlement} {
		b, err := encodeVolume(v)
		if err != nil {
			return Frame{}, err
		}
		data = append(data, b...)
	}
	data = append(data, encodeClock(r.Clock)...)
	data = append(data, encodeStatus(r)...)
	return Frame{f.Type, f.Address, f.Control | Reply, data}, nil
}

// Refuse returns the meter's refusal of the request f: SER and the status bytes.
func (f Frame) Refuse(status ...byte) Frame {
	var data []byte
	if ser, ok := f.Serial(); ok {
		data = append(data, ser)
	}
	return Frame{f.Type, f.Address, f.Control | Reply | Refusal, append(data, status...)}
}

func encodeVolume(v *meter.Decimal) ([]byte, error) {
	if v == nil {
		return []byte{0xFF, 0xFF, 0xFF, 0xFF, unitCubicMetre}, nil
	}
	whole, fraction, _ := strings.Cut(v.String(), ".")
	if v.Negative() || len(whole) > 6 || len(fraction) > 2 {
		return nil, fmt.Errorf("the volume %s m³ does not fit into six digits and two decimals", v)
	}
	digits := strings.Repeat("0", 6-len(whole)) + whole + fraction + strings.Repeat("0", 2-len(fraction))
	return append(lowFirst(digits), unitCubicMetre), nil
}

// clockDigits leaves the digits of 2006-01-02T15:04:05.
var clockDigits = strings.NewReplacer("-", "", "T", "", ":", "")

func encodeClock(c *meter.Clock) []byte {
	if c == nil {
		return []byte(strings.Repeat("\xFF", 7))
	}
	return lowFirst(clockDigits.Replace(c.String()))
}

// lowFirst turns decimal digits into BCD, low byte first.
func lowFirst(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic("cjt188: " + digits + " is not an even number of digits")
	}
	slices.Reverse(b)
	return b
}

func encodeStatus(r meter.Reading) []byte {
	if len(r.RawStatus) == 2 {
		return r.RawStatus
	}
	if r.Status.Valve == nil && r.Status.Battery == nil {
		return []byte{0xFF, 0xFF}
	}
	var st byte
	if v := r.Status.Valve; v != nil {
		st |= byte(slices.Index(valves[:], *v)) & valveBits
	}
	if b := r.Status.Battery; b != nil && *b == meter.BatteryLow {
		st |= batteryLow
	}
	return []byte{st, 0}
}
