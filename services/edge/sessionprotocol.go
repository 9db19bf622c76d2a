package edge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/pkg/meter"
)

// sessionProtocol is dianchao.v1.
type sessionProtocol struct {
	socket *socket
}

type helloMessage struct {
	Type             string        `json:"type"`
	Protocol         string        `json:"protocol"`
	Edge             meter.EdgeID  `json:"edge"`
	Session          string        `json:"session"`
	Version          string        `json:"version"`
	Limits           sessionLimits `json:"limits"`
	DefaultTimeoutMS int64         `json:"default_timeout_ms"`
	PingMS           int64         `json:"ping_ms"`
}

type sessionLimits struct {
	Commands     int   `json:"commands"`
	MessageBytes int   `json:"message_bytes"`
	TimeoutMS    int64 `json:"timeout_ms"`
}

type errorMessage struct {
	Type  string          `json:"type"`
	ID    meter.CommandID `json:"id,omitzero"`
	Error *meter.Error    `json:"error"`
}

type drainingMessage struct {
	Type        string `json:"type"`
	ReconnectMS int64  `json:"reconnect_ms"`
}

var pong = []byte(`{"type":"pong"}`)

func (p *sessionProtocol) greeting() []byte {
	e := p.socket.edge
	return encode(helloMessage{
		Type: "hello", Protocol: subprotocol, Edge: e.id, Session: p.socket.session.id.String(), Version: e.config.Version,
		Limits: sessionLimits{
			Commands: e.config.SessionCommands, MessageBytes: meter.MaxCommandBytes, TimeoutMS: meter.MaxTimeout.Milliseconds(),
		},
		DefaultTimeoutMS: meter.DefaultTimeout.Milliseconds(),
		PingMS:           e.pace.ping.Milliseconds(),
	})
}

func (p *sessionProtocol) message(text []byte) {
	m, err := parseMessage(text)
	if err != nil {
		p.refuse(m.ID, meter.AsError(err))
		return
	}
	switch m.Type {
	case "read":
		p.ask(m.Read)
	case "cancel":
		if !p.socket.session.cancel(m.ID) {
			p.refuse(m.ID, meter.Errorf(meter.CodeBadCommand, "no read with the id %s is outstanding in this session", m.ID))
		}
	case "presence":
		p.presence(m.Subscribe)
	case "frames":
		p.frames(m.Concentrator, m.Subscribe)
	case "ping":
		p.socket.send(pong)
	}
}

// ask sends a read off. One that is legal and refused all the same has its one terminal answer in that; only an id that
// is outstanding already cannot have another.
func (p *sessionProtocol) ask(r read) {
	err := p.socket.session.ask(r)
	switch {
	case err == nil:
	case err.Code == meter.CodeBadCommand:
		p.refuse(r.Command.ID, err)
	default:
		p.socket.send(asAnswerMessage(failedAnswer(r, err)))
	}
}

// presence leaves a wish for the goroutine that writes, in place of an older one that it has not seen yet.
func (p *sessionProtocol) presence(wish bool) {
	select {
	case <-p.socket.subscribe:
	default:
	}
	p.socket.subscribe <- wish
}

func (p *sessionProtocol) frames(c meter.ConcentratorID, wish bool) {
	if !wish {
		p.socket.frames.end(c)
		return
	}
	if err := p.socket.frames.start(c); err != nil {
		p.refuse(meter.CommandID{}, err)
	}
}

func (p *sessionProtocol) tooLarge() {
	p.refuse(meter.CommandID{}, meter.Errorf(meter.CodeBadCommand, "the message has more than %d bytes", meter.MaxCommandBytes))
}

func (p *sessionProtocol) refuse(id meter.CommandID, why *meter.Error) {
	p.socket.send(encode(errorMessage{"error", id, why}))
}

func (p *sessionProtocol) deliver(_ *command, _ meter.Stage, answer []byte) {
	p.socket.send(asAnswerMessage(answer))
}

func (p *sessionProtocol) farewell(reconnect time.Duration) ([]byte, websocket.StatusCode) {
	return encode(drainingMessage{"draining", reconnect.Milliseconds()}), closeDrained
}

// asAnswerMessage puts the type into a gateway's answer without decoding it. The answer is a JSON object with at least
// a stage in it.
func asAnswerMessage(answer []byte) []byte {
	const head = `{"type":"answer",`
	answer = bytes.TrimLeft(answer, " \t\r\n")
	out := make([]byte, 0, len(head)+len(answer))
	out = append(out, head...)
	return append(out, answer[1:]...)
}

// encode is json.Marshal for our own types, which cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("%T cannot be encoded: %v", v, err))
	}
	return b
}
