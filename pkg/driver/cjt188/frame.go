package cjt188

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// The frame of CJ/T 188: 68 T A0…A6 C L DATA CS 16, with FE bytes before it that only wake the receiver.
const (
	start     = 0x68
	end       = 0x16
	preamble  = 0xFE
	lengthAt  = 10  // where L stands
	overhead  = 13  // every byte of a frame that is not DATA
	maxData   = 100 // L is at most 64H
	maxFrame  = overhead + maxData
	maxFillFE = 13 // two to four FE by the standard, up to 13 seen on wires
)

// Bits and functions of the control byte C.
const (
	Read byte = 0x01 // read data

	Reply   byte = 0x80 // D7: from the meter
	Refusal byte = 0x40 // D6: the meter reports an error
)

// Frame is one frame of CJ/T 188 in either direction, without preamble, length, checksum and delimiters.
type Frame struct {
	Type    MeterType
	Address Address
	Control byte
	Data    []byte // 1 to 100 bytes
}

// MeterType is the byte T: 10–19 water, 20–29 heat, 30–39 gas (hexadecimal). As text it is two hexadecimal digits.
type MeterType byte

func (t MeterType) String() string { return fmt.Sprintf("%02X", byte(t)) }

// UnmarshalText reads two hexadecimal digits.
func (t *MeterType) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != 1 {
		return fmt.Errorf("the meter type %q must be two hexadecimal digits such as 10", b)
	}
	*t = MeterType(raw[0])
	return nil
}

// Address is a meter's address as it stands on the wire, A0 first: two BCD digits a byte, low byte first.
type Address [7]byte

// ParseAddress reads 14 decimal digits, high digit first.
func ParseAddress(digits string) (Address, error) {
	var a Address
	if len(digits) != 2*len(a) || strings.Trim(digits, "0123456789") != "" {
		return a, fmt.Errorf("%q is not an address of 14 digits", digits)
	}
	for i := range a {
		at := 2 * (len(a) - 1 - i)
		a[i] = (digits[at]-'0')<<4 | (digits[at+1] - '0')
	}
	return a, nil
}

// String returns the 14 digits, high digit first. The wildcard of the standard reads AAAAAAAAAAAAAA.
func (a Address) String() string {
	var high Address
	for i, b := range a {
		high[len(a)-1-i] = b
	}
	return strings.ToUpper(hex.EncodeToString(high[:]))
}

// Parse reads b as exactly one frame, with or without preamble. Its errors say what is wrong and, for
// length and checksum, what was stated and what was counted. The frame's Data aliases b.
func Parse(b []byte) (Frame, error) {
	b = b[countPreamble(b):]
	if len(b) == 0 || b[0] != start {
		return Frame{}, fmt.Errorf("no 68 at the start of the frame")
	}
	if len(b) <= lengthAt {
		return Frame{}, fmt.Errorf("the frame ends after %d bytes, before its length", len(b))
	}
	l := int(b[lengthAt])
	if len(b) != l+overhead {
		return Frame{}, fmt.Errorf("length is %d bytes, L says %d", len(b), l+overhead)
	}
	if l < 1 || l > maxData {
		return Frame{}, fmt.Errorf("the length L is %02X, it must be from 01 to %X", l, maxData)
	}
	if cs, want := b[len(b)-2], sum(b[:len(b)-2]); cs != want {
		return Frame{}, fmt.Errorf("checksum is %02X, calculated %02X", cs, want)
	}
	if b[len(b)-1] != end {
		return Frame{}, fmt.Errorf("the frame ends with %02X, not with 16", b[len(b)-1])
	}
	f := Frame{Type: MeterType(b[1]), Control: b[9], Data: b[lengthAt+1 : lengthAt+1+l]}
	copy(f.Address[:], b[2:9])
	return f, nil
}

// Append appends the frame's bytes, without preamble, to dst. It panics if Data has not 1 to 100 bytes.
func (f Frame) Append(dst []byte) []byte {
	if len(f.Data) < 1 || len(f.Data) > maxData {
		panic(fmt.Sprintf("cjt188: a frame of %d data bytes", len(f.Data)))
	}
	at := len(dst)
	dst = append(dst, start, byte(f.Type))
	dst = append(dst, f.Address[:]...)
	dst = append(dst, f.Control, byte(len(f.Data)))
	dst = append(dst, f.Data...)
	return append(dst, sum(dst[at:]), end)
}

// whole looks at bytes that begin with 68. n is the size of the valid frame there; n = 0 and more: it may
// still become one; n = 0 and not more: it will not.
func whole(b []byte) (n int, more bool) {
	if len(b) <= lengthAt {
		return 0, true
	}
	l := int(b[lengthAt])
	if l < 1 || l > maxData {
		return 0, false
	}
	n = l + overhead
	if len(b) < n {
		return 0, true
	}
	if b[n-1] != end || b[n-2] != sum(b[:n-2]) {
		return 0, false
	}
	return n, false
}

func countPreamble(b []byte) int {
	n := 0
	for n < len(b) && b[n] == preamble {
		n++
	}
	return n
}

func sum(b []byte) (s byte) {
	for _, c := range b {
		s += c
	}
	return s
}
