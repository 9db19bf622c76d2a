package cjt188

import (
	"fmt"
	"strings"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Sizes of what 901F answers, DI and SER included.
const (
	waterLength = 0x16 // water and gas: volume 5, settlement volume 5, clock 7, ST 2
	heatLength  = 0x2E // heat 5, heat 5, power 5, flow 5, volume 5, temperatures 3 and 3, hours 3, clock 7, ST 2
)

// Reading decodes the data of an answer with the current data (901F). Its errors name the field and the bytes
// that make no sense. A field filled with FF or 99 is one that the meter does not support: null.
func (f Frame) Reading() (*meter.Reading, error) {
	var r meter.Reading
	fields := fields{rest: f.Data[min(3, len(f.Data)):]}
	switch len(f.Data) {
	case waterLength:
		r.Volume = fields.volume("volume")
		r.Settlement = fields.volume("volume at settlement")
	case heatLength:
		r.Heat = &meter.Heat{
			Settlement: fields.quantity("heat at settlement"),
			Energy:     fields.quantity("heat"),
			Power:      fields.quantity("power"),
			Flow:       fields.quantity("flow rate"),
		}
		r.Volume = fields.volume("volume")
		r.Heat.Supply = fields.number("supply temperature", 3, 2)
		r.Heat.Return = fields.number("return temperature", 3, 2)
		r.Heat.Hours = fields.integer("working hours", 3)
	default:
		return nil, fmt.Errorf("current data of %02X bytes, known are %X (water, gas) and %X (heat)", len(f.Data), waterLength, heatLength)
	}
	r.Clock = clock(fields.take(7))
	status := fields.take(2)
	r.RawStatus = append(meter.Hex(nil), status...)
	if !filled(status) {
		r.Status = decodeStatus(status[0])
	}
	if fields.err != nil {
		return nil, fields.err
	}
	return &r, nil
}

// fields takes an answer's data apart from front to back and keeps the first error. Its taker has checked
// that the data are long enough.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) take(n int) []byte {
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

// integer reads n bytes of BCD, low byte first; nil if they are filled or an error was met.
func (f *fields) integer(what string, n int) *int64 {
	b := f.take(n)
	if filled(b) || f.err != nil {
		return nil
	}
	v, ok := decodeBCD(b)
	if !ok {
		f.err = fmt.Errorf("the %s %X is not BCD", what, b)
		return nil
	}
	return &v
}

func (f *fields) number(what string, n int, scale int32) *meter.Decimal {
	v := f.integer(what, n)
	if v == nil {
		return nil
	}
	d := meter.NewDecimal(*v, scale)
	return &d
}

// quantity reads four bytes of BCD and the unit byte behind them. Where the value is filled, vendors fill the
// unit too, so it is not looked at.
func (f *fields) quantity(what string) *meter.Quantity {
	code := f.rest[4]
	v := f.integer(what, 4)
	f.take(1)
	if v == nil {
		return nil
	}
	u, ok := units[code]
	if !ok {
		f.err = fmt.Errorf("the unit %02X of the %s is not known", code, what)
		return nil
	}
	return &meter.Quantity{Value: meter.NewDecimal(*v, u.scale), Unit: u.name}
}

func (f *fields) volume(what string) *meter.Decimal {
	q := f.quantity(what)
	if q == nil {
		return nil
	}
	if q.Unit != cubicMetre {
		f.err = fmt.Errorf("the %s is in %s, which is no unit of volume", what, q.Unit)
		return nil
	}
	return &q.Value
}

const cubicMetre = "m3"

// units are the standard's unit codes with how many decimals the eight digits before them have. 29 is litres
// by the table, and the meters that send it count them without decimals: ×0.001 m³.
var units = map[byte]struct {
	name  string
	scale int32
}{
	0x02: {"Wh", 2}, 0x05: {"kWh", 2}, 0x08: {"MWh", 2},
	0x0B: {"kJ", 2}, 0x0E: {"MJ", 2}, 0x11: {"GJ", 2},
	0x14: {"W", 2}, 0x17: {"kW", 2}, 0x1A: {"MW", 2},
	0x29: {cubicMetre, 3}, unitCubicMetre: {cubicMetre, 2},
	0x32: {"L/h", 4}, 0x35: {"m3/h", 4},
}

const unitCubicMetre = 0x2C

// filled reports whether every byte is FF, or every byte is 99: both mean "not supported".
func filled(b []byte) bool {
	s := string(b)
	return s == strings.Repeat("\xFF", len(b)) || s == strings.Repeat("\x99", len(b))
}

// decodeBCD reads two digits a byte, low byte first.
func decodeBCD(b []byte) (v int64, ok bool) {
	for i := len(b) - 1; i >= 0; i-- {
		high, low := b[i]>>4, b[i]&0x0F
		if high > 9 || low > 9 {
			return 0, false
		}
		v = v*100 + int64(high)*10 + int64(low)
	}
	return v, true
}

// clock reads SS mm hh DD MM YY CC. One vendor sends the seven bytes the other way round, so that order is
// tried where the standard's makes no date; nil if neither does.
func clock(b []byte) *meter.Clock {
	var n, back [7]int
	for i := range n {
		v, ok := decodeBCD(b[i : i+1])
		if !ok {
			return nil
		}
		n[i], back[len(n)-1-i] = int(v), int(v)
	}
	for _, t := range [][7]int{n, back} {
		// The century must be one in which meters have clocks: else a reversed date could pass for the year 620.
		if t[6] != 19 && t[6] != 20 {
			continue
		}
		if c, ok := meter.NewClock(t[6]*100+t[5], t[4], t[3], t[2], t[1], t[0]); ok {
			return &c
		}
	}
	return nil
}

// Bits of the first byte of ST.
const (
	valveBits  = 0x03
	batteryLow = 0x04
)

var valves = [4]meter.Valve{0b00: meter.ValveOpen, 0b01: meter.ValveClosed, 0b10: meter.ValveMoving, 0b11: meter.ValveAbnormal}

func decodeStatus(st byte) meter.Status {
	valve, battery := valves[st&valveBits], meter.BatteryOK
	if st&batteryLow != 0 {
		battery = meter.BatteryLow
	}
	return meter.Status{Valve: &valve, Battery: &battery}
}
