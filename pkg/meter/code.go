package meter

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Code says why a command failed. Its number is stable; on the wire it is its name.
type Code uint8

// The codes of the contract. Retry says for which of them asking again can help.
const (
	CodeInternal            Code = iota + 1 // a fault of ours
	CodeBadCommand                          // malformed, unknown field values, illegal address
	CodeConcentratorOffline                 // no gateway holds its link
	CodeLinkLost                            // the link went down during the exchange
	CodeBusy                                // the bus queue is full
	CodeExpired                             // the deadline passed before the frame went out: nothing was sent
	CodeMeterSilent                         // sent, no answer in time
	CodeMeterRefused                        // the meter answered with an error code
	CodeBadAnswer                           // bytes came, none was a valid frame of this meter
	CodeCancelled                           // its asker withdrew it
	CodeRateLimited                         // the session asks faster than it may
	CodeTooManyCommands                     // the session has too many commands outstanding
	CodeDraining                            // this node is about to leave
)

var codes = newNames("error code", map[Code]string{
	CodeInternal:            "internal",
	CodeBadCommand:          "bad_command",
	CodeConcentratorOffline: "concentrator_offline",
	CodeLinkLost:            "link_lost",
	CodeBusy:                "busy",
	CodeExpired:             "expired",
	CodeMeterSilent:         "meter_silent",
	CodeMeterRefused:        "meter_refused",
	CodeBadAnswer:           "bad_answer",
	CodeCancelled:           "cancelled",
	CodeRateLimited:         "rate_limited",
	CodeTooManyCommands:     "too_many_commands",
	CodeDraining:            "draining",
})

func (c Code) String() string                { return codes.text(c) }
func (c Code) MarshalText() ([]byte, error)  { return codes.marshal(c) }
func (c *Code) UnmarshalText(b []byte) error { return codes.unmarshal(c, b) }

// Retry reports whether the same command can succeed later without anybody changing it.
func (c Code) Retry() bool {
	return c != CodeBadCommand && c != CodeMeterRefused && c != CodeCancelled
}

// Codes returns every code of the contract in the order of its number.
func Codes() []Code { return codes.all() }

// Error is a failure with its code and a sentence in English that names the thing that failed and, where
// there is one, what to do next.
type Error struct {
	Code    Code
	Message string
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Code.String() + ": " + e.Message }

// AsError returns the Error in err's chain. An error that carries no code is CodeInternal with its own text.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

type errorJSON struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(errorJSON{e.Code, e.Message, e.Code.Retry()})
}

func (e *Error) UnmarshalJSON(b []byte) error {
	var j errorJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*e = Error{j.Code, j.Message}
	return nil
}
