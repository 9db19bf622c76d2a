package meter

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
)

// Bounds of a command.
const (
	DefaultTimeout  = 15 * time.Second
	MaxTimeout      = 2 * time.Minute
	MaxAgeLimit     = 24 * time.Hour
	MaxCommandBytes = 4096
)

// Command asks for the reading of one meter.
type Command struct {
	// ID makes asking again safe: the same id joins the same exchange. Zero: the gateway gives it one.
	ID CommandID
	// Meter is the address asked for. Required.
	Meter Address
	// Timeout is how long the asker waits, at most MaxTimeout. It counts from when the first of our programs
	// saw the command; the deadline that follows from it travels in HeaderDeadline.
	Timeout time.Duration
	// MaxAge lets a reading that came off the wire at most this long ago be the answer. Zero: read the meter.
	MaxAge time.Duration
	// Lane is LaneInteractive unless somebody says otherwise.
	Lane Lane
	// Stages asks for the stages before the answer too.
	Stages bool
}

// Lane is which of a bus's two queues a command waits in.
type Lane uint8

const (
	LaneInteractive Lane = iota + 1 // somebody watches
	LaneBatch                       // a job that can wait
)

var lanes = newNames("lane", map[Lane]string{LaneInteractive: "interactive", LaneBatch: "batch"})

func (l Lane) String() string                { return lanes.text(l) }
func (l Lane) MarshalText() ([]byte, error)  { return lanes.marshal(l) }
func (l *Lane) UnmarshalText(b []byte) error { return lanes.unmarshal(l, b) }

type commandJSON struct {
	ID        *CommandID `json:"id,omitempty"`
	Meter     *Address   `json:"meter"`
	TimeoutMS *int64     `json:"timeout_ms,omitempty"`
	MaxAgeMS  *int64     `json:"max_age_ms,omitempty"`
	Lane      *Lane      `json:"lane,omitempty"`
	Stages    bool       `json:"stages,omitempty"`
}

// ParseCommand reads a command's JSON; fields it does not know are ignored. It returns CodeBadCommand, naming
// the field, if the text is no JSON object, is larger than MaxCommandBytes, or holds an illegal value. The
// command comes back with what could be read, so that a failed answer can still name its id.
func ParseCommand(b []byte) (Command, error) {
	if len(b) > MaxCommandBytes {
		return Command{}, Errorf(CodeBadCommand, "the command has %d bytes, at most %d are allowed", len(b), MaxCommandBytes)
	}
	var c Command
	return c, c.UnmarshalJSON(b)
}

// UnmarshalJSON is ParseCommand without its bound on size.
func (c *Command) UnmarshalJSON(b []byte) error {
	*c = Command{Timeout: DefaultTimeout, Lane: LaneInteractive}
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return Errorf(CodeBadCommand, `a command is a JSON object such as {"meter":"101001"}`)
	}
	var j commandJSON
	err := DecodeJSON(b, &j)
	if j.ID != nil {
		c.ID = *j.ID
	}
	if err != nil {
		return err
	}
	if j.Meter == nil {
		return Errorf(CodeBadCommand, `the field "meter" is missing`)
	}
	c.Meter, c.Stages = *j.Meter, j.Stages
	if j.Lane != nil {
		c.Lane = *j.Lane
	}
	if c.Timeout, err = milliseconds("timeout_ms", j.TimeoutMS, time.Millisecond, MaxTimeout, DefaultTimeout); err != nil {
		return err
	}
	c.MaxAge, err = milliseconds("max_age_ms", j.MaxAgeMS, 0, MaxAgeLimit, 0)
	return err
}

// MarshalJSON implements json.Marshaler.
func (c Command) MarshalJSON() ([]byte, error) {
	j := commandJSON{Meter: &c.Meter, Stages: c.Stages}
	if !c.ID.IsZero() {
		j.ID = &c.ID
	}
	if c.Lane == LaneBatch {
		j.Lane = &c.Lane
	}
	if c.Timeout != DefaultTimeout {
		ms := c.Timeout.Milliseconds()
		j.TimeoutMS = &ms
	}
	if c.MaxAge != 0 {
		ms := c.MaxAge.Milliseconds()
		j.MaxAgeMS = &ms
	}
	return json.Marshal(j)
}

func milliseconds(field string, ms *int64, least, most, otherwise time.Duration) (time.Duration, error) {
	if ms == nil {
		return otherwise, nil
	}
	if *ms < least.Milliseconds() || *ms > most.Milliseconds() {
		return 0, Errorf(CodeBadCommand, `the field "%s" is %d, it must be from %d to %d`, field, *ms, least.Milliseconds(), most.Milliseconds())
	}
	return time.Duration(*ms) * time.Millisecond, nil
}

// DecodeJSON is json.Unmarshal whose every error is CodeBadCommand in words for people.
func DecodeJSON(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return Errorf(CodeBadCommand, `the field "%s" cannot be a JSON %s`, wrongType.Field, wrongType.Value)
	}
	return Errorf(CodeBadCommand, "not valid JSON: %v", err)
}
