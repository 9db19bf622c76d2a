//go:build composed

package composed

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/coder/websocket"
)

// session is one WebSocket from its opening to its end, which its client hears of once. Its fields belong to the
// client's goroutine.
type session struct {
	client   *client
	cancel   context.CancelFunc
	conn     *websocket.Conn
	began    time.Time
	edge     string
	greeted  bool
	draining bool
	gone     bool
	beat     *timer
	silence  *timer
}

// message is any of the server's.
type message struct {
	Type        string
	ID          string
	Stage       string
	Edge        string
	PingMS      int64 `json:"ping_ms"`
	ReconnectMS int64 `json:"reconnect_ms"`
	Error       struct{ Code string }
	raw         []byte
}

// read hands on what the server says until the connection ends.
func (s *session) read(ctx context.Context) websocket.StatusCode {
	conn, _, err := websocket.Dial(ctx, s.client.url, &websocket.DialOptions{Subprotocols: []string{"dianchao.v1"}})
	if err != nil {
		return websocket.StatusAbnormalClosure
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	s.client.post(func() { s.conn = conn })
	for {
		_, b, err := conn.Read(ctx)
		at := time.Now()
		if closed := new(websocket.CloseError); errors.As(err, closed) {
			return closed.Code
		}
		if err != nil {
			return websocket.StatusAbnormalClosure
		}
		m := message{raw: b}
		if err := json.Unmarshal(b, &m); err != nil {
			s.client.row.complain("an edge said what is no JSON: %.200q", b)
			return websocket.StatusAbnormalClosure
		}
		s.client.post(func() {
			if !s.gone {
				s.client.receive(s, m, at)
			}
		})
	}
}

// send writes a message. One that cannot be written needs no word: the connection's end will be heard of.
func (s *session) send(m any) {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	ctx, cancel := context.WithTimeout(s.client.ctx, silence)
	defer cancel()
	if s.conn.Write(ctx, websocket.MessageText, b) != nil {
		s.cancel()
	}
}

func (s *session) ping(every int64) {
	s.send(map[string]string{"type": "ping"})
	if s.silence == nil {
		s.expect()
	}
	s.beat = s.client.after(time.Duration(every)*time.Millisecond, func() { s.ping(every) })
}

func (s *session) expect() {
	s.silence = s.client.after(silence, func() {
		s.cancel()
		s.end(websocket.StatusAbnormalClosure)
	})
}

func (s *session) end(code websocket.StatusCode) {
	if s.gone {
		return
	}
	s.detach()
	s.client.over(s, code)
}

func (s *session) leave() {
	s.detach()
	conn, cancel := s.conn, s.cancel
	if conn == nil {
		cancel()
		return
	}
	s.client.owned.Go(func() {
		defer cancel()
		conn.Close(websocket.StatusNormalClosure, "") // a server that is gone does not say goodbye
	})
}

func (s *session) detach() {
	s.gone = true
	s.beat.stop()
	s.silence.stop()
}
