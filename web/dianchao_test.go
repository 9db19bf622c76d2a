package web_test

import (
	"fmt"
	"testing"

	"github.com/coder/websocket"
)

func TestAReadTellsItsStagesAndEndsOnce(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("101001", { timeoutMs: 9000, maxAgeMs: 60000 }); 0`)
	read := s.hear("read")
	if read["concentrator"] != "101" || read["meter"] != "101001" || read["max_age_ms"] != 60000.0 || read["stages"] != true {
		t.Errorf("the client asked %v", read)
	}
	if ms := read["timeout_ms"].(float64); ms <= 0 || ms > 9000 {
		t.Errorf("timeout_ms is %v, want at most 9000", ms)
	}
	for _, stage := range []string{"accepted", "queued", "sent"} {
		s.answer(read, stage, nil)
	}
	s.done(read, "123.450")
	s.failed(read, "internal", "a second end", true)
	if got := p.outcome("first"); !got.OK || got.Volume != "123.450" {
		t.Errorf("the read ended with %+v", got)
	}
	check(p, `stages`, []string{"accepted", "queued", "sent"})
}

func TestALostConnectionAsksAgainWithTheSameID(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("101001", { timeoutMs: 60000 }); window.second = ask("101002", { timeoutMs: 60000 }); 0`)
	first, second := s.hear("read"), s.hear("read")
	s.done(second, "2.00")
	p.outcome("second")
	s.conn.CloseNow()

	s = e.next()
	again := s.hear("read")
	if again["id"] != first["id"] || again["meter"] != "101001" {
		t.Errorf("the client asked %v again, want %v", again, first)
	}
	if again["timeout_ms"].(float64) >= first["timeout_ms"].(float64) {
		t.Errorf("asked again with %v ms of %v: the deadline is counted from the first ask", again["timeout_ms"], first["timeout_ms"])
	}
	s.done(again, "1.00")
	if got := p.outcome("first"); got.Volume != "1.00" {
		t.Errorf("the read ended with %+v", got)
	}
	p.run(`window.third = ask("101003"); 0`)
	if read := s.hear("read"); read["meter"] != "101003" {
		t.Errorf("the client asked %v: what had ended was asked again", read)
	}
}

func TestAReadWithoutAConnectionWaitsForOne(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	e.next().conn.CloseNow()
	p.until(`client.state === "reconnecting"`)
	p.run(`window.first = ask("101001"); 0`)
	s := e.next()
	s.done(s.hear("read"), "1.00")
	if got := p.outcome("first"); !got.OK {
		t.Errorf("the read ended with %+v", got)
	}
}

func TestDrainingMovesOnAndLosesNothing(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	old := e.next()
	p.run(`window.first = ask("101001"); 0`)
	first := old.hear("read")
	old.say(object{"type": "draining", "reconnect_ms": 50})
	p.until(`events.some(({ type, detail }) => type === "draining" && detail.reconnectMs === 50)`)
	p.run(`window.second = ask("101002"); 0`)

	s := e.next()
	second := s.hear("read")
	if second["meter"] != "101002" {
		t.Errorf("the new session was asked %v: the old one still owes the first read", second)
	}
	s.done(second, "2.00")
	if got := p.outcome("second"); got.Volume != "2.00" {
		t.Errorf("the second read ended with %+v", got)
	}
	old.quiet()
	old.done(first, "1.00")
	if got := p.outcome("first"); got.Volume != "1.00" {
		t.Errorf("the first read ended with %+v", got)
	}
	if code := receive(t, old.ended, "the old session's end"); code != websocket.StatusNormalClosure {
		t.Errorf("the old session ended with %v, want 1000 once it owed nothing", code)
	}
	check(p, `client.state`, "open")
}

// A click can meet the news that the server leaves.
func TestAReadThatALeavingServerRefusesIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	old := e.next()
	p.run(`window.first = ask("101001"); 0`)
	refused := old.hear("read")
	old.say(object{
		"type": "answer", "id": refused["id"], "concentrator": "101", "meter": "101001", "stage": "failed",
		"error": object{"code": "draining", "message": "this edge node is about to leave", "retry": true},
	})
	old.say(object{"type": "draining", "reconnect_ms": 50})
	s := e.next()
	again := s.hear("read")
	if again["id"] != refused["id"] {
		t.Errorf("asked %v, want %v again", again, refused)
	}
	s.done(again, "1.00")
	if got := p.outcome("first"); got.Volume != "1.00" {
		t.Errorf("the read ended with %+v", got)
	}
}

func TestADrainThatRunsOutAsksElsewhere(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	old := e.next()
	p.run(`window.first = ask("101001"); 0`)
	first := old.hear("read")
	old.say(object{"type": "draining", "reconnect_ms": 300})
	_ = old.conn.Close(4000, "drained")
	s := e.next()
	again := s.hear("read")
	if again["id"] != first["id"] {
		t.Errorf("asked %v, want %v again", again, first)
	}
	s.done(again, "1.00")
	if got := p.outcome("first"); !got.OK {
		t.Errorf("the read ended with %+v", got)
	}
	check(p, `events.find(({ type }) => type === "reconnecting").detail.delayMs <= 300`, true)
}

func TestCloseCodesSayWhetherToReconnect(t *testing.T) {
	t.Parallel()
	for code, reconnects := range map[websocket.StatusCode]bool{1001: true, 1009: true, 4000: true, 4001: true, 4002: true, 4499: true, 4500: false, 4999: false} {
		t.Run(fmt.Sprint(int(code)), func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			p := openClient(t, e)
			s := e.next()
			p.run(`window.first = ask("101001"); 0`)
			s.hear("read")
			_ = s.conn.Close(code, "as the test wants it")
			if reconnects {
				s = e.next()
				s.done(s.hear("read"), "1.00")
				if got := p.outcome("first"); !got.OK {
					t.Errorf("the read ended with %+v", got)
				}
				return
			}
			if got := p.outcome("first"); got.Code != "closed" || got.Retry {
				t.Errorf("the read ended with %+v, want closed", got)
			}
			p.run(`client.reconnect(); dispatchEvent(new Event("online"))`)
			check(p, `client.state`, "closed")
			check(p, `events.filter(({ type }) => type !== "open")`, []object{{"type": "close", "detail": object{"code": float64(code), "reason": "as the test wants it", "reconnect": false}}})
			if got := p.outcome(`ask("101001")`); got.Code != "closed" {
				t.Errorf("a later read ended with %+v, want closed", got)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*edge, *page, *session, object) {
		e := newEdge(t)
		p := openClient(t, e)
		s := e.next()
		p.run(`window.stop = new AbortController(); window.first = ask("101001", { timeoutMs: 60000, signal: stop.signal }); 0`)
		return e, p, s, s.hear("read")
	}
	t.Run("the server confirms", func(t *testing.T) {
		t.Parallel()
		_, p, s, read := start(t)
		p.run(`stop.abort()`)
		if cancel := s.hear("cancel"); cancel["id"] != read["id"] {
			t.Errorf("cancelled %v, want %v", cancel, read["id"])
		}
		s.failed(read, "cancelled", "withdrawn", false)
		if got := p.outcome("first"); got.Code != "cancelled" || got.Message != "withdrawn" {
			t.Errorf("the read ended with %+v", got)
		}
	})
	t.Run("by its id", func(t *testing.T) {
		t.Parallel()
		_, p, s, read := start(t)
		check(p, fmt.Sprintf(`[client.cancel(%q), client.cancel(%[1]q), client.cancel("unknown")]`, read["id"]), []bool{true, false, false})
		s.hear("cancel")
		s.failed(read, "cancelled", "withdrawn", false)
		p.outcome("first")
		s.quiet()
	})
	t.Run("the answer was faster", func(t *testing.T) {
		t.Parallel()
		_, p, s, read := start(t)
		p.run(`stop.abort()`)
		s.hear("cancel")
		s.done(read, "1.00")
		s.say(object{"type": "error", "id": read["id"], "error": object{"code": "bad_command", "message": "not outstanding", "retry": false}})
		if got := p.outcome("first"); !got.OK {
			t.Errorf("the read ended with %+v", got)
		}
	})
	t.Run("the server says nothing", func(t *testing.T) {
		t.Parallel()
		_, p, s, _ := start(t)
		p.run(`stop.abort()`)
		s.hear("cancel")
		if got := p.outcome("first"); got.Code != "cancelled" {
			t.Errorf("the read ended with %+v", got)
		}
	})
	t.Run("the connection breaks", func(t *testing.T) {
		t.Parallel()
		e, p, s, _ := start(t)
		p.run(`stop.abort()`)
		s.hear("cancel")
		s.conn.CloseNow()
		if got := p.outcome("first"); got.Code != "cancelled" {
			t.Errorf("the read ended with %+v", got)
		}
		p.run(`window.second = ask("101002"); 0`)
		if read := e.next().hear("read"); read["meter"] != "101002" {
			t.Errorf("the client asked %v: a cancelled read must not be asked again", read)
		}
	})
	t.Run("before it was asked", func(t *testing.T) {
		t.Parallel()
		_, p, s, _ := start(t)
		if got := p.outcome(`ask("101002", { signal: AbortSignal.abort() })`); got.Code != "cancelled" {
			t.Errorf("the read ended with %+v", got)
		}
		s.quiet()
	})
}

func TestPresenceIsSubscribedAgain(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.links = ""; window.unwatch = client.watchLinks((map) => (links = [...map.values()].map((l) => l.concentrator + l.state).join())); 0`)
	if m := s.hear("presence"); m["subscribe"] != true {
		t.Errorf("the client said %v", m)
	}
	link := func(concentrator, state string) object {
		return object{"concentrator": concentrator, "state": state, "since": "2026-11-22T08:00:00Z", "gateway": "gw-1", "driver": "cjt188"}
	}
	s.say(object{"type": "presence", "full": true, "links": []object{link("101", "up"), link("102", "up")}})
	p.until(`links === "101up,102up"`)
	s.say(object{"type": "presence", "links": []object{link("102", "down")}})
	p.until(`links === "101up,102down"`)
	s.conn.CloseNow()

	s = e.next()
	s.hear("presence")
	check(p, `links`, "101up,102down")
	s.say(object{"type": "presence", "full": true, "links": []object{link("103", "up")}})
	p.until(`links === "103up"`)
	p.run(`unwatch()`)
	if m := s.hear("presence"); m["subscribe"] != false {
		t.Errorf("the client said %v, want the end of the subscription", m)
	}
}

func TestAReadThatNobodyAnswersEnds(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("101001", { timeoutMs: 50 }); 0`)
	read := s.hear("read")
	if got := p.outcome("first"); got.Code != "no_answer" || !got.Retry {
		t.Errorf("the read ended with %+v", got)
	}
	s.done(read, "1.00")
	check(p, `client.state`, "open")
}

func TestASilentServerIsLeft(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.pingMS = 50
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("101001", { timeoutMs: 60000 }); 0`)
	s.hear("read")
	receive(t, s.pings, "a ping")
	s = e.next() // after the ten seconds that a pong may take
	s.done(s.hear("read"), "1.00")
	if got := p.outcome("first"); !got.OK {
		t.Errorf("the read ended with %+v", got)
	}
	check(p, `events.find(({ type }) => type === "close").detail.reason`, "the server was silent")
}

func TestARefusedMessage(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("not legal"); 0`)
	refused := object{"code": "bad_command", "message": "meter address is not legal", "retry": false}
	s.say(object{"type": "error", "id": s.hear("read")["id"], "error": refused})
	if got := p.outcome("first"); got.Code != "bad_command" || got.Message != "meter address is not legal" {
		t.Errorf("the read ended with %+v", got)
	}
	s.say(object{"type": "error", "error": refused})
	p.until(`events.some(({ type, detail }) => type === "error" && detail.code === "bad_command")`)
	for _, id := range []string{"", "a b", "ä"} {
		if got := p.outcome(fmt.Sprintf(`ask("101001", { id: %q })`, id)); got.Code != "bad_command" {
			t.Errorf("the id %q ended with %+v", id, got)
		}
	}
	p.run(`window.twice = ask("101001", { id: "one" }); 0`)
	if got := p.outcome(`ask("101001", { id: "one" })`); got.Code != "bad_command" {
		t.Errorf("the second read with one id ended with %+v", got)
	}
	s.done(s.hear("read"), "1.00")
	if got := p.outcome("twice"); !got.OK {
		t.Errorf("the first read with that id ended with %+v", got)
	}
}

func TestAPageThatIsNoSecureContext(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := open(t, e.otherHost("/blank"))
	check(p, `isSecureContext || "randomUUID" in crypto`, false)
	id := value[string](p, `import("/dianchao.js").then(({ uuid }) => uuid())`)
	check(p, fmt.Sprintf(`/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(%q)`, id), true)
}

func TestClose(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.first = ask("101001"); 0`)
	s.hear("read")
	p.run(`client.close()`)
	if got := p.outcome("first"); got.Code != "closed" {
		t.Errorf("the read ended with %+v", got)
	}
	if code := receive(t, s.ended, "the session's end"); code != websocket.StatusNormalClosure {
		t.Errorf("the session ended with %v, want 1000", code)
	}
}
