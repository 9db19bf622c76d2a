package edge

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/dianchao/dianchao/pkg/meter"
)

// read is a command with the concentrator it goes to: a dianchao.v1 read message, or the body of POST /v1/reads.
type read struct {
	Concentrator meter.ConcentratorID
	Command      meter.Command
}

// parseRead reads a read's JSON. It returns CodeBadCommand, naming the field, if one is missing or illegal, and then
// as much of the read as could be understood. A read without "stages" wants them.
func parseRead(b []byte) (read, error) {
	if !utf8.Valid(b) {
		return read{}, meter.Errorf(meter.CodeBadCommand, "the text is not UTF-8")
	}
	command, err := meter.ParseCommand(b)
	r := read{Command: command}
	if err != nil {
		return r, err
	}
	if r.Concentrator, err = parseConcentrator(b); err != nil {
		return r, err
	}
	var rest struct {
		Stages *bool `json:"stages"`
	}
	err = meter.DecodeJSON(b, &rest)
	r.Command.Stages = rest.Stages == nil || *rest.Stages
	return r, err
}

// parseConcentrator reads the field "concentrator" of a JSON object.
func parseConcentrator(b []byte) (meter.ConcentratorID, error) {
	var j struct {
		Concentrator *meter.ConcentratorID `json:"concentrator"`
	}
	if err := meter.DecodeJSON(b, &j); err != nil {
		return meter.ConcentratorID{}, err
	}
	if j.Concentrator == nil {
		return meter.ConcentratorID{}, meter.Errorf(meter.CodeBadCommand, `the field "concentrator" is missing`)
	}
	return *j.Concentrator, nil
}

// message is what a dianchao.v1 client sends. Exactly the fields of its type are set.
type message struct {
	Type         string
	ID           meter.CommandID      // read, cancel
	Read         read                 // read
	Subscribe    bool                 // presence, frames
	Concentrator meter.ConcentratorID // frames
}

// parseMessage reads one message. It returns CodeBadCommand, naming the field, if it cannot be used, and then the
// message's type and id as far as they are legal.
func parseMessage(b []byte) (message, error) {
	if !utf8.Valid(b) {
		return message{}, meter.Errorf(meter.CodeBadCommand, "the message is not UTF-8")
	}
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return message{}, meter.Errorf(meter.CodeBadCommand, `a message is a JSON object such as {"type":"ping"}`)
	}
	var j struct {
		Type      string          `json:"type"`
		ID        json.RawMessage `json:"id"`
		Subscribe *bool           `json:"subscribe"`
	}
	err := meter.DecodeJSON(b, &j)
	m := message{Type: j.Type}
	var idErr error
	if len(j.ID) > 0 {
		idErr = meter.DecodeJSON(j.ID, &m.ID)
	}
	if err != nil {
		return m, err
	}
	switch m.Type {
	case "read":
		if m.Read, err = parseRead(b); err != nil {
			return m, err
		}
		return m, requireID(m.ID, idErr)
	case "cancel":
		return m, requireID(m.ID, idErr)
	case "presence":
		m.Subscribe, err = requireWish(j.Subscribe)
		return m, err
	case "frames":
		if m.Concentrator, err = parseConcentrator(b); err != nil {
			return m, err
		}
		m.Subscribe, err = requireWish(j.Subscribe)
		return m, err
	case "ping":
		return m, nil
	case "":
		return m, meter.Errorf(meter.CodeBadCommand, `the field "type" is missing`)
	}
	return m, meter.Errorf(meter.CodeBadCommand, `there is no message type %.40q; a client sends "read", "cancel", "presence", "frames" or "ping"`, m.Type)
}

func requireID(id meter.CommandID, err error) error {
	if err != nil {
		return err
	}
	if id.IsZero() {
		return meter.Errorf(meter.CodeBadCommand, `the field "id" is missing`)
	}
	return nil
}

func requireWish(subscribe *bool) (bool, error) {
	if subscribe == nil {
		return false, meter.Errorf(meter.CodeBadCommand, `the field "subscribe" is missing, it is true or false`)
	}
	return *subscribe, nil
}
