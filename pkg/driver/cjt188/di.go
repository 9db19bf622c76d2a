package cjt188

import "fmt"

// DI is a data identifier, as the standard writes it: 901F is the current data.
type DI uint16

// CurrentData is what a read of a meter asks for: volumes, clock, status.
const CurrentData DI = 0x901F

func (d DI) String() string { return fmt.Sprintf("%04X", uint16(d)) }

// known reports whether the identifier is one of the standard's or of the reports meters send unasked. It
// decides in which order two bytes were meant, for both orders are in use under both editions.
func (d DI) known() bool {
	switch {
	case d == CurrentData, d == 0x911F, d == 0x907F: // current data; current data and clock of 2018
		return true
	case 0x8102 <= d && d <= 0x810A: // prices, days, purchases, key version, address
		return true
	case 0xA010 <= d && d <= 0xA019: // what is written: prices, clock, base reading, valve, address
		return true
	case 0xD120 <= d && d <= 0xD12B: // the last twelve months
		return true
	}
	return d == 0xA205 || d == 0x9020 // automatic reports
}

// DI returns the identifier at the start of the frame's data, whichever byte came first. ok is false if the
// data are too short to hold one with its serial number, or it is known in neither order; it is then given as
// if the high byte came first.
func (f Frame) DI() (d DI, ok bool) {
	if len(f.Data) < 3 || f.Control&Refusal != 0 {
		return 0, false
	}
	high := DI(f.Data[0])<<8 | DI(f.Data[1])
	low := high<<8 | high>>8
	if !high.known() && low.known() {
		return low, true
	}
	return high, high.known()
}

// Serial returns SER, which an answer repeats from its request: it follows the DI, and stands first in a
// refusal. ok is false if the frame is too short to hold one.
func (f Frame) Serial() (ser byte, ok bool) {
	refused := f.Control&Refusal != 0
	if refused && len(f.Data) >= 2 { // one byte is the status alone
		return f.Data[0], true
	}
	if !refused && len(f.Data) >= 3 {
		return f.Data[2], true
	}
	return 0, false
}
