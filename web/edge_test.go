package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/dianchao/dianchao/web"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// contentPolicy is the strictest under which the pages must work.
const contentPolicy = "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self'; script-src 'self'"

// object is a JSON object.
type object = map[string]any

// edge serves the pages and the server's side of dianchao.v1 over real sockets; what is said in a session is up
// to the test, so that every turn of the contract can be taken at will.
type edge struct {
	*httptest.Server
	t        *testing.T
	pingMS   int
	sessions chan *session
}

func newEdge(t *testing.T) *edge {
	e := &edge{t: t, pingMS: 30_000, sessions: make(chan *session, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			e.accept(ctx, w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", contentPolicy)
		http.FileServerFS(web.Files).ServeHTTP(w, r)
	})
	mux.HandleFunc("/blank", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>a page of somebody else</title>")
	})
	mux.HandleFunc("/v1/meters", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"meters":[{"concentrator":"101","meter":"101001","name":"翠湖苑 1 幢"}]}`)
	})
	e.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		cancel()
		e.Close()
	})
	return e
}

// session is one browser's connection as the server sees it. Pings are kept out of said.
type session struct {
	t     *testing.T
	conn  *websocket.Conn
	ctx   context.Context
	said  chan object
	pings chan object
	ended chan websocket.StatusCode // one value, once the client has gone
}

func (e *edge) accept(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"dianchao.v1"}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	s := &session{e.t, conn, ctx, make(chan object, 256), make(chan object, 256), make(chan websocket.StatusCode, 1)}
	s.say(object{"type": "hello", "protocol": "dianchao.v1", "edge": "edge-1", "session": "s", "version": "test",
		"limits":             object{"commands": 64, "message_bytes": 4096, "timeout_ms": 120_000},
		"default_timeout_ms": 15_000, "ping_ms": e.pingMS})
	e.sessions <- s
	for {
		var m object
		if err := wsjson.Read(ctx, conn, &m); err != nil {
			s.ended <- websocket.CloseStatus(err)
			return
		}
		if m["type"] == "ping" {
			s.pings <- m
		} else {
			s.said <- m
		}
	}
}

// next waits for the next session that a browser opens.
func (e *edge) next() *session {
	e.t.Helper()
	return receive(e.t, e.sessions, "a session")
}

// say sends; a browser that has gone shows in what the test waits for next.
func (s *session) say(m object) { _ = wsjson.Write(s.ctx, s.conn, m) }

// hear waits for the client's next message and checks its type.
func (s *session) hear(kind string) object {
	s.t.Helper()
	m := receive(s.t, s.said, "the message "+kind)
	if m["type"] != kind {
		s.t.Fatalf("the client said %v, want %s", m, kind)
	}
	return m
}

// quiet checks that the client has said nothing more up to now.
func (s *session) quiet() {
	s.t.Helper()
	select {
	case m := <-s.said:
		s.t.Fatalf("the client said %v, want nothing", m)
	default:
	}
}

// answer sends one stage of the read that the client asked for.
func (s *session) answer(read object, stage string, more object) {
	a := object{"type": "answer", "id": read["id"], "concentrator": read["concentrator"], "meter": read["meter"],
		"stage": stage, "at": "2026-11-22T08:00:00Z", "gateway": "gw-1"}
	for k, v := range more {
		a[k] = v
	}
	s.say(a)
}

func (s *session) done(read object, volume string) {
	s.answer(read, "done", object{
		"source": "wire",
		"reading": object{"volume_m3": volume, "settlement_m3": "120.00", "clock": "2026-11-22T16:00:01",
			"status": object{"valve": "open", "battery": "low"}, "raw_status": "0400"},
		"frames":    object{"sent": "FEFE6810", "received": "FE681016"},
		"timing_ms": object{"queue": 1, "wire": 41, "total": 43},
	})
}

func (s *session) failed(read object, code, message string, retry bool) {
	s.answer(read, "failed", object{"error": object{"code": code, "message": message, "retry": retry}})
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come within %v", what, patience)
		panic("unreachable")
	}
}
