package cjt188

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Heartbeat is the bytes of one heartbeat (心跳包), as its owner configured them. On the command line it is plain
// text, or "hex:" and hexadecimal digits; the empty text is no heartbeat.
type Heartbeat string

// maxHeartbeat bounds a heartbeat so that a frame that is split by two of them still fits into the window.
const maxHeartbeat = 64

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Heartbeat) UnmarshalText(b []byte) error {
	text := string(b)
	if digits, ok := strings.CutPrefix(text, "hex:"); ok {
		raw, err := hex.DecodeString(digits)
		if err != nil {
			return fmt.Errorf("the heartbeat %q is not in hexadecimal digits", b)
		}
		text = string(raw)
	}
	*h = Heartbeat(text)
	return h.validate()
}

func (h Heartbeat) validate() error {
	if len(h) > maxHeartbeat {
		return fmt.Errorf("a heartbeat of %d bytes, at most %d are allowed", len(h), maxHeartbeat)
	}
	if h == "\x68" {
		return fmt.Errorf("a heartbeat of 68 alone cannot be told from the start of a frame")
	}
	return nil
}

// Order is in which order the bytes of a DI go out. Answers may come in either.
type Order string

const (
	HighFirst Order = "901F" // CJ/T 188-2004
	LowFirst  Order = "1F90" // CJ/T 188-2018
)

// SerialRule is what SER in an answer must be.
type SerialRule string

const (
	SerialStrict SerialRule = "strict" // the request's
	SerialAny    SerialRule = "any"    // anything: for meters that never repeat it
)

func (o Order) bytes(d DI) []byte {
	if o == LowFirst {
		return []byte{byte(d), byte(d >> 8)}
	}
	return []byte{byte(d >> 8), byte(d)}
}
