package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/dianchao/dianchao/pkg/meter"
)

// clickToCopy is the dialect of the pages that were written for the original program.
type clickToCopy struct {
	socket *socket
}

// copyAnswer is the dialect's answer. AccumVal is the exact decimal, as a JSON number.
type copyAnswer struct {
	ConcentratorNo  meter.ConcentratorID
	WaterMtrAddress meter.Address
	AccumVal        json.Number
	IsDownCommand   bool
}

func (p *clickToCopy) greeting() []byte { return []byte(textConnected) }

func (p *clickToCopy) message(text []byte) {
	concentratorNo, address, ok := parseClickToCopy(text)
	if !ok {
		p.socket.send([]byte(textNoRequest))
		return
	}
	concentrator, err := meter.ParseConcentratorID(concentratorNo)
	if err != nil {
		p.socket.send([]byte(illegalLine("集中器编号", concentratorNo)))
		return
	}
	m, err := meter.ParseAddress(address)
	if err != nil {
		p.socket.send([]byte(illegalLine("水表地址", address)))
		return
	}
	if p.socket.session.reads(concentrator, m) {
		p.socket.send(append([]byte(textRepeated), text...))
		return
	}
	id, err := meter.ParseCommandID(uuid.NewString())
	if err != nil {
		p.socket.send([]byte(p.failureLine(concentrator, m, meter.AsError(err))))
		return
	}
	r := read{concentrator, meter.Command{ID: id, Meter: m, Timeout: meter.DefaultTimeout}}
	if refused := p.socket.session.ask(r); refused != nil {
		p.socket.send([]byte(p.failureLine(concentrator, m, refused)))
	}
}

func (p *clickToCopy) tooLarge() { p.socket.send([]byte(textNoRequest)) }

func (p *clickToCopy) deliver(c *command, stage meter.Stage, answer []byte) {
	if !stage.Terminal() {
		return
	}
	text, err := p.translate(c, answer)
	if err != nil {
		text = []byte(p.failureLine(c.Concentrator, c.Command.Meter, meter.AsError(err)))
	}
	p.socket.send(text)
}

// translate turns a terminal answer into the dialect's. A failed one comes back as its error.
func (p *clickToCopy) translate(c *command, answer []byte) ([]byte, error) {
	var a struct {
		Reading *struct {
			Volume *meter.Decimal `json:"volume_m3"`
		} `json:"reading"`
		Error *meter.Error `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, err
	}
	switch {
	case a.Error != nil:
		return nil, a.Error
	case a.Reading == nil:
		return nil, errors.New("the answer has no reading")
	case a.Reading.Volume == nil:
		return []byte(noVolumeLine(c.Concentrator, c.Command.Meter)), nil
	}
	return encode(copyAnswer{c.Concentrator, c.Command.Meter, json.Number(a.Reading.Volume.String()), true}), nil
}

// failureLine is what the dialect says instead of an answer. The original's page knows one text for a program that is
// not there; a gateway that nobody can reach is the same to it.
func (p *clickToCopy) failureLine(c meter.ConcentratorID, m meter.Address, why *meter.Error) string {
	e := p.socket.edge
	if why.Code == meter.CodeInternal && !e.connected() || why.Code == meter.CodeConcentratorOffline && e.board.empty() {
		return textNoGateway
	}
	var since time.Time
	if l, known := e.board.link(c); known && l.State == meter.LinkDown {
		since = l.Since
	}
	return failureLine(c, m, why, since)
}

// The original has no word for a server that leaves: its pages only see the connection close.
func (p *clickToCopy) farewell(time.Duration) ([]byte, websocket.StatusCode) {
	return nil, websocket.StatusGoingAway
}

// parseClickToCopy returns the two fields of a request, or false if text is none. Names are case-sensitive; a number
// may stand without quotes.
func parseClickToCopy(text []byte) (concentratorNo, address string, ok bool) {
	if !utf8.Valid(text) || !bytes.Contains(text, []byte("ConcentratorNo")) {
		return "", "", false
	}
	// Maps, because encoding/json matches the fields of a struct in any case.
	var request, content map[string]json.RawMessage
	if json.Unmarshal(text, &request) != nil || json.Unmarshal(request["Content"], &content) != nil {
		return "", "", false
	}
	concentratorNo, okC := textOrNumber(content["ConcentratorNo"])
	address, okM := textOrNumber(content["WaterMtrAddress"])
	return concentratorNo, address, okC && okM
}

func textOrNumber(raw json.RawMessage) (string, bool) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		var n json.Number
		if json.Unmarshal(raw, &n) != nil {
			return "", false
		}
		s = n.String()
	}
	s = strings.TrimSpace(s)
	return s, s != ""
}
