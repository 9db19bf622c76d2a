package edge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// These tests follow docs/browser.md, "frames", with a peer that plays the gateway's part of docs/nats.md, "Frames".

// framesAsk is a request for frames as it came in at the peer.
type framesAsk struct {
	meter.FramesWish
	peer    peer
	message *nats.Msg
}

// keepFrames takes the requests for a concentrator's frames.
func (p peer) keepFrames(concentrator string) <-chan framesAsk {
	p.t.Helper()
	asks := make(chan framesAsk, 64)
	if _, err := p.nc.Subscribe(meter.SubjectFrames(mustConcentrator(p.t, concentrator)), func(m *nats.Msg) {
		wish, err := meter.ParseFramesWish(m.Data)
		if err != nil {
			p.t.Errorf("the edge sent %s: %v", m.Data, err)
			return
		}
		asks <- framesAsk{wish, p, m}
	}); err != nil {
		p.t.Fatal(err)
	}
	p.flush()
	return asks
}

func (p peer) flush() {
	p.t.Helper()
	if err := p.nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// nextAsk waits for the next request.
func nextAsk(t *testing.T, asks <-chan framesAsk) framesAsk {
	t.Helper()
	select {
	case a := <-asks:
		return a
	case <-time.After(patience):
		t.Fatal("the edge did not ask")
		panic("unreachable")
	}
}

// takeAsk waits for the next request and checks what it wants.
func takeAsk(t *testing.T, asks <-chan framesAsk, last int) framesAsk {
	t.Helper()
	a := nextAsk(t, asks)
	if a.Last != last || a.Watch != 30*time.Second {
		t.Fatalf("the edge asked %s, want the last %d", a.message.Data, last)
	}
	return a
}

// tell sends frames, each named by its bytes.
func (a framesAsk) tell(frames ...string) {
	a.peer.t.Helper()
	for i, b := range frames {
		frames[i] = fmt.Sprintf(`{"at":"2026-11-22T08:00:00.123Z","direction":"up","kind":"answer","bytes":%q,"of tomorrow":1}`, b)
	}
	a.respond(`{"concentrator":"101","gateway":"gw-1","frames":[` + strings.Join(frames, ",") + `]}`)
}

func (a framesAsk) respond(body string) {
	a.peer.t.Helper()
	if err := a.message.Respond([]byte(body)); err != nil {
		a.peer.t.Error(err)
	}
}

// shown is a message of frames, with the bytes of each.
type shown struct {
	Type         string
	Concentrator string
	Full         bool
	Gateway      string
	Frames       []struct{ Bytes string }
	Error        *meter.Error
}

func decodeFrames(t *testing.T, text string) (shown, string) {
	t.Helper()
	var m shown
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Type != "frames" || m.Frames == nil {
		t.Fatalf("received %s, want frames", text)
	}
	names := make([]string, len(m.Frames))
	for i, f := range m.Frames {
		names[i] = f.Bytes
	}
	return m, strings.Join(names, " ")
}

// wantFrames takes the next message, which tells these frames of 101.
func (c client) wantFrames(full bool, want string) {
	c.t.Helper()
	text, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	m, got := decodeFrames(c.t, text)
	if m.Concentrator != "101" || m.Gateway != "gw-1" || m.Full != full || m.Error != nil || got != want {
		c.t.Fatalf("received %s, want %s, full is %v", text, want, full)
	}
}

// wantNoFrames takes the next message, which says why there are none.
func (c client) wantNoFrames(code meter.Code, words string) {
	c.t.Helper()
	text, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	m, got := decodeFrames(c.t, text)
	if !m.Full || got != "" || m.Error == nil || m.Error.Code != code || !strings.Contains(m.Error.Message, words) {
		c.t.Fatalf("received %s, want the code %s and the words %q", text, code, words)
	}
}

// wantNothing checks that no message is on its way.
func (c client) wantNothing() {
	c.t.Helper()
	c.send(`{"type":"ping"}`)
	c.want("pong")
}

const watch101 = `{"type":"frames","concentrator":"101","subscribe":true}`

func TestFramesComeAsTheGatewayGivesThem(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	asks := p.keepFrames("101")
	c := n.session(t)
	c.send(watch101)
	a := takeAsk(t, asks, meter.MaxFrames)
	a.tell("01", "02")
	text, err := c.receive()
	want := `{"type":"frames","concentrator":"101","full":true,"gateway":"gw-1","frames":[` +
		`{"at":"2026-11-22T08:00:00.123Z","direction":"up","kind":"answer","bytes":"01","of tomorrow":1},` +
		`{"at":"2026-11-22T08:00:00.123Z","direction":"up","kind":"answer","bytes":"02","of tomorrow":1}]}`
	if err != nil || text != want {
		t.Fatalf("received\n%s, %v, want\n%s", text, err, want)
	}
	a.tell("03")
	c.wantFrames(false, "03")
	a.respond(`no JSON`)
	a.tell("04")
	c.wantFrames(false, "04")

	c.send(`{"type":"frames","concentrator":"101","subscribe":false}`)
	c.send(`{"type":"frames","concentrator":"102","subscribe":false}`) // which it never was
	c.wantNothing()
	a.tell("05")
	p.flush()
	c.wantNothing()
}

func TestAWatchOfFramesIsRenewed(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesRenew = 20 * time.Millisecond })
	asks := connectPeer(t, s.URL()).keepFrames("101")
	c := n.session(t)
	c.send(watch101)
	first := takeAsk(t, asks, meter.MaxFrames)
	first.tell()
	c.wantFrames(true, "")
	for range 3 {
		again := takeAsk(t, asks, 0)
		if again.message.Reply != first.message.Reply {
			t.Errorf("the reply subject is %s, it was %s: the gateway cannot know that it is the same watch", again.message.Reply, first.message.Reply)
		}
		first.tell("01") // comes between, and is no answer to the renewal
		c.wantFrames(false, "01")
		again.tell()
		first.tell("02")
		c.wantFrames(false, "02")
	}
}

func TestFramesAreAskedForAnewWhenSomeMayBeMissing(t *testing.T) {
	since := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name string
		miss func(t *testing.T, p peer, asks <-chan framesAsk, first framesAsk)
	}{
		{"the concentrator logged in elsewhere", func(t *testing.T, p peer, _ <-chan framesAsk, _ framesAsk) {
			l := p.link("101", meter.LinkUp, since)
			if err := l.Gateway.UnmarshalText([]byte("gw-2")); err != nil {
				t.Fatal(err)
			}
			p.post(l)
		}},
		{"the concentrator logged in again", func(t *testing.T, p peer, _ <-chan framesAsk, _ framesAsk) {
			p.post(p.link("101", meter.LinkUp, since.Add(time.Second)))
		}},
		{"a renewal got lost", func(t *testing.T, _ peer, asks <-chan framesAsk, _ framesAsk) {
			takeAsk(t, asks, 0)
		}},
		{"a renewal was refused", func(t *testing.T, _ peer, asks <-chan framesAsk, first framesAsk) {
			first.respond(`{"concentrator":"101","error":{"code":"internal","message":"a fault"}}`)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := embedNATS(t)
			n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesRenew, e.pace.framesReply = 200*time.Millisecond, 100*time.Millisecond })
			p := connectPeer(t, s.URL())
			p.post(p.link("101", meter.LinkUp, since))
			until(t, "the edge knows the link", func() bool { return !n.board.empty() })
			asks := p.keepFrames("101")
			c := n.session(t)
			c.send(watch101)
			first := takeAsk(t, asks, meter.MaxFrames)
			first.tell("01")
			c.wantFrames(true, "01")
			row.miss(t, p, asks, first)
			again := nextAsk(t, asks)
			for renewals := 0; again.Last == 0 && renewals < 50; renewals++ {
				again.tell()
				again = nextAsk(t, asks)
			}
			if again.Last != meter.MaxFrames || again.message.Reply == first.message.Reply {
				t.Fatalf("asked %s under %s, want all frames under a subject of its own: what the first still brings must be told apart", again.message.Data, again.message.Reply)
			}
			first.tell("02") // the older watch has some time left
			again.tell("01", "02")
			for {
				text, err := c.receive()
				if err != nil {
					t.Fatal(err)
				}
				m, got := decodeFrames(t, text)
				if m.Error != nil {
					continue
				}
				if got != "01 02" || !m.Full {
					t.Fatalf("received %s, want all anew", text)
				}
				return
			}
		})
	}
}

func TestFramesAfterNATSWasAway(t *testing.T) {
	dir := t.TempDir()
	s, err := bus.Embed("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(s.URL(), "nats://")
	// Without noticing that NATS is back nothing would be asked for an hour.
	n := startEdge(t, s.URL(), nil, func(e *Edge) {
		e.pace.framesRenew, e.pace.framesReply, e.pace.settle = time.Hour, time.Hour, patience
	})
	asks := connectPeer(t, s.URL()).keepFrames("101")
	c := n.session(t)
	c.send(watch101)
	takeAsk(t, asks, meter.MaxFrames).tell("01")
	c.wantFrames(true, "01")

	s.Close()
	until(t, "the edge has noticed", func() bool { return !n.connected() })
	another := n.session(t)
	another.send(watch101)
	another.wantNoFrames(meter.CodeInternal, "cut off from NATS")
	another.conn.CloseNow()
	until(t, "that session has gone", func() bool { return len(n.roster.all()) == 1 })
	if status, body := n.get(t, "/v1/concentrators/101/frames"); status != 503 || !strings.Contains(body, "cut off from NATS") {
		t.Errorf("%d %s", status, body)
	}
	if s, err = bus.Embed(address, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	takeAsk(t, asks, meter.MaxFrames).tell("01", "02")
	c.wantFrames(true, "01 02")
}

func TestFramesWithoutAGateway(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesReply, e.pace.framesRenew = 20*time.Millisecond, 40*time.Millisecond })
	p := connectPeer(t, s.URL())
	c := n.session(t)
	t.Run("none at all", func(t *testing.T) {
		c.send(watch101)
		c.wantNoFrames(meter.CodeConcentratorOffline, "concentrator 101 is offline")
	})
	var asks <-chan framesAsk
	t.Run("one that does not answer", func(t *testing.T) {
		asks = p.keepFrames("101")
		for range 3 {
			nextAsk(t, asks)
		}
		c.wantNothing() // the client knows
	})
	t.Run("one that knows nothing", func(t *testing.T) {
		for range 3 {
			ask := nextAsk(t, asks)
			ask.respond(`{"concentrator":"101","error":{"code":"concentrator_offline","message":"no gateway knows it","retry":true}}`)
			ask.tell("01") // does not count after an error: it may not be all
		}
		c.wantNoFrames(meter.CodeConcentratorOffline, "no gateway knows it")
		c.wantNothing()
	})
	t.Run("one that has frames in the end", func(t *testing.T) {
		nextAsk(t, asks).tell("01")
		c.wantFrames(true, "01")
	})
}

func TestFramesOfAGatewayThatIsSilent(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesReply = 20 * time.Millisecond })
	asks := connectPeer(t, s.URL()).keepFrames("101")
	c := n.session(t)
	c.send(watch101)
	c.wantNoFrames(meter.CodeConcentratorOffline, "concentrator 101 is offline")
	takeAsk(t, asks, meter.MaxFrames)
	takeAsk(t, asks, meter.MaxFrames) // one ask may get lost
}

func TestFramesOfAConcentratorThatComesOnlineComeAtOnce(t *testing.T) {
	s := embedNATS(t)
	// Without the news from the board nothing would be asked for an hour.
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesReply, e.pace.framesRenew = time.Hour, time.Hour })
	p := connectPeer(t, s.URL())
	c := n.session(t)
	c.send(watch101)
	c.wantNoFrames(meter.CodeConcentratorOffline, "concentrator 101 is offline")
	asks := p.keepFrames("101")
	p.post(p.link("101", meter.LinkUp, time.Now()))
	takeAsk(t, asks, meter.MaxFrames).tell("01")
	c.wantFrames(true, "01")
}

func TestASessionWatchesFourLinks(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	asks := p.keepFrames("101")
	c := n.session(t)
	before := n.nc.NumSubscriptions()
	c.send(watch101)
	takeAsk(t, asks, meter.MaxFrames).tell("01")
	c.wantFrames(true, "01")
	for _, other := range []string{"102", "103", "104"} {
		c.send(`{"type":"frames","concentrator":"` + other + `","subscribe":true}`)
		c.wantNoFrames(meter.CodeConcentratorOffline, "concentrator "+other)
	}
	c.send(`{"type":"frames","concentrator":"105","subscribe":true}`)
	if m := c.want("error"); m.Error.Code != meter.CodeTooManyCommands || !strings.Contains(m.Error.Message, "105") {
		t.Errorf("the fifth: %s", m.text)
	}
	c.send(watch101) // anew
	takeAsk(t, asks, meter.MaxFrames).tell("01", "02")
	c.wantFrames(true, "01 02")
	c.send(`{"type":"frames","concentrator":"102","subscribe":false}`)
	c.send(`{"type":"frames","concentrator":"105","subscribe":true}`)
	c.wantNoFrames(meter.CodeConcentratorOffline, "concentrator 105")

	c.conn.Close(websocket.StatusNormalClosure, "")
	until(t, "nothing is watched any more", func() bool { return n.nc.NumSubscriptions() == before })
}

func TestASlowClientStartsAnewWithTheNewestFrames(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	asks := p.keepFrames("101")
	f := newFrameWatches(n.Edge)
	t.Cleanup(f.close)
	if err := f.start(mustConcentrator(t, "101")); err != nil {
		t.Fatal(err)
	}
	a := takeAsk(t, asks, meter.MaxFrames)
	a.tell("0000")
	<-f.ready
	if m, got := decodeFrames(t, string(f.next())); !m.Full || got != "0000" {
		t.Fatalf("first came %v", m)
	}
	for i := range 200 {
		a.tell(fmt.Sprintf("%04X", i))
	}
	waiting := func() (newest string, n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range f.watches {
			if w.untold != nil {
				_, names := decodeFrames(t, string(encode(w.untold)))
				return names[strings.LastIndexByte(names, ' ')+1:], len(w.untold.Frames)
			}
		}
		return "", 0
	}
	until(t, "the newest waits", func() bool { newest, _ := waiting(); return newest == "00C7" })
	if _, n := waiting(); n != meter.MaxFrames {
		t.Errorf("%d frames wait", n)
	}
	m, got := decodeFrames(t, string(f.next()))
	if !m.Full || !strings.HasPrefix(got, "0088 0089 ") || !strings.HasSuffix(got, " 00C7") {
		t.Errorf("after a while came %s, full is %v", got, m.Full)
	}
	if more := f.next(); more != nil {
		t.Errorf("then came %s", more)
	}
}

func TestFramesThatCameTooFastAreAskedForAgain(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	asks := p.keepFrames("101")
	f := newFrameWatches(n.Edge)
	t.Cleanup(f.close)
	if err := f.start(mustConcentrator(t, "101")); err != nil {
		t.Fatal(err)
	}
	a := takeAsk(t, asks, meter.MaxFrames)
	a.tell("0000")
	<-f.ready

	f.mu.Lock() // the watch stands still
	for i := range 2 * reportQueue {
		a.tell(fmt.Sprintf("%04X", i))
	}
	p.flush()
	if err := n.nc.Flush(); err != nil {
		t.Error(err)
	}
	f.mu.Unlock()
	takeAsk(t, asks, meter.MaxFrames).tell("FFFF")
	until(t, "all is told anew", func() bool {
		text := f.next()
		if text == nil {
			return false
		}
		m, got := decodeFrames(t, string(text))
		return m.Full && got == "FFFF"
	})
}

func TestWishesForFramesThatCannotBeUsed(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	c := n.session(t)
	for _, row := range []struct{ name, text, words string }{
		{"no concentrator", `{"type":"frames","subscribe":true}`, `"concentrator" is missing`},
		{"illegal concentrator", `{"type":"frames","concentrator":"10.1","subscribe":true}`, "10.1"},
		{"concentrator is a number", `{"type":"frames","concentrator":101,"subscribe":true}`, `"concentrator"`},
		{"no wish", `{"type":"frames","concentrator":"101"}`, `"subscribe" is missing`},
		{"wish is a text", `{"type":"frames","concentrator":"101","subscribe":"yes"}`, `"subscribe"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.conn}
			c.send(row.text)
			c.wantError("", row.words)
			c.wantNothing()
		})
	}
}

func TestLastFramesOverHTTP(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.framesReply = 100 * time.Millisecond })
	p := connectPeer(t, s.URL())
	const log = `{"concentrator":"101","gateway":"gw-1","frames":[{"bytes":"01","of tomorrow":1}]}`
	for concentrator, body := range map[string]string{
		"101": log,
		"102": `{"concentrator":"102","gateway":"gw-1","error":{"code":"concentrator_offline","message":"unknown","retry":true}}`,
		"103": `{"concentrator":"103","error":{}}`,
		"104": `no JSON`,
		"105": "",
	} {
		if _, err := p.nc.Subscribe("meter.frames."+concentrator, func(m *nats.Msg) {
			if string(m.Data) != `{"last":64,"watch_ms":0}` {
				t.Errorf("the edge asked %s", m.Data)
			}
			if body != "" {
				_ = m.Respond([]byte(body))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.flush()
	for _, row := range []struct {
		name, method, concentrator string
		status                     int
		words                      string
	}{
		{"known", http.MethodGet, "101", 200, log},
		{"unknown to the gateways", http.MethodGet, "102", 404, `"unknown"`},
		{"an error without a code", http.MethodGet, "103", 500, `"error":{}`},
		{"no JSON", http.MethodGet, "104", 500, `"internal"`},
		{"a gateway that is silent", http.MethodGet, "105", 404, `{"concentrator":"105","error":{"code":"concentrator_offline"`},
		{"no gateway", http.MethodGet, "999", 404, `{"concentrator":"999","error":{"code":"concentrator_offline"`},
		{"illegal", http.MethodGet, "10.1", 400, `10.1`},
		{"another method", http.MethodPost, "101", 405, `takes GET`},
	} {
		t.Run(row.name, func(t *testing.T) {
			response := n.do(t, row.method, "/v1/concentrators/"+row.concentrator+"/frames", "", nil)
			_, body := bodyOf(t, response)
			if response.StatusCode != row.status || !strings.Contains(body, row.words) {
				t.Errorf("%d %s, want %d and %q", response.StatusCode, body, row.status, row.words)
			}
		})
	}
}
