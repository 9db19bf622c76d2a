package meter

import (
	"encoding/hex"
	"strings"
	"time"
)

// Stage is how far a command has come. StageDone and StageFailed are terminal.
type Stage uint8

const (
	StageAccepted Stage = iota + 1 // the gateway that holds the link has it
	StageQueued                    // it waits for the bus, at Answer.Position
	StageSent                      // its frame went out
	StageDone                      // the answer, with its reading
	StageFailed                    // the answer, with its error
)

var stages = newNames("stage", map[Stage]string{
	StageAccepted: "accepted", StageQueued: "queued", StageSent: "sent", StageDone: "done", StageFailed: "failed",
})

func (s Stage) String() string                { return stages.text(s) }
func (s Stage) MarshalText() ([]byte, error)  { return stages.marshal(s) }
func (s *Stage) UnmarshalText(b []byte) error { return stages.unmarshal(s, b) }

// Terminal reports whether nothing follows this stage.
func (s Stage) Terminal() bool { return s == StageDone || s == StageFailed }

// Source is where a reading came from.
type Source uint8

const (
	SourceWire   Source = iota + 1 // this command's own exchange
	SourceShared                   // another command's exchange with the same meter
	SourceRecent                   // a reading not older than the command's MaxAge
)

var sources = newNames("source", map[Source]string{
	SourceWire: "wire", SourceShared: "shared", SourceRecent: "recent",
})

func (s Source) String() string                { return sources.text(s) }
func (s Source) MarshalText() ([]byte, error)  { return sources.marshal(s) }
func (s *Source) UnmarshalText(b []byte) error { return sources.unmarshal(s, b) }

// Answer is one stage of a command on its way back to who asked. Every command gets exactly one terminal one.
type Answer struct {
	ID           CommandID      `json:"id,omitzero"`
	Concentrator ConcentratorID `json:"concentrator,omitzero"`
	Meter        Address        `json:"meter,omitzero"`
	Stage        Stage          `json:"stage"`
	Position     int            `json:"position,omitempty"` // 1 is next; StageQueued only
	WaitMS       int64          `json:"wait_ms,omitempty"`  // estimate until the frame goes out; StageQueued only
	Source       Source         `json:"source,omitempty"`   // StageDone only
	At           time.Time      `json:"at,omitzero"`        // when the reading came off the wire, or the stage was reached
	Reading      *Reading       `json:"reading,omitempty"`
	Error        *Error         `json:"error,omitempty"`
	Frames       *Frames        `json:"frames,omitempty"`
	Timing       *Timing        `json:"timing_ms,omitempty"`
	Gateway      GatewayID      `json:"gateway,omitzero"`
}

// Frames are the bytes of an exchange as they stood on the wire, in hexadecimal.
type Frames struct {
	Sent     Hex `json:"sent,omitempty"`
	Received Hex `json:"received,omitempty"`
}

// Timing is how long each hop of a command took at the gateway, in milliseconds.
type Timing struct {
	Queue int64 `json:"queue"` // from arrival to the frame's first byte out
	Wire  int64 `json:"wire"`  // from the frame's first byte out to the whole answer
	Total int64 `json:"total"`
}

// Hex is bytes that read as upper-case hexadecimal in JSON.
type Hex []byte

func (h Hex) String() string { return strings.ToUpper(hex.EncodeToString(h)) }

func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}
