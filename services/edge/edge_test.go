package edge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

func TestRunSaysWhatIsInItsWay(t *testing.T) {
	s := embedNATS(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, row := range []struct {
		name, http, want string
	}{
		{"a taken port", taken.Addr().String(), taken.Addr().String() + " is taken by another program: stop it, or choose another address with --http"},
		{"no address", "nonsense", "cannot serve on nonsense (--http)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Defaults()
			if err != nil {
				t.Fatal(err)
			}
			c.HTTP, c.NATS = row.http, s.URL()
			e, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("Run returned %v, want %q", err, row.want)
			}
		})
	}
}

func TestNewNamesTheOptionThatCannotBeUsed(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"id", func(c *Config) { c.ID = "a.b" }, "--edge-id"},
		{"commands", func(c *Config) { c.SessionCommands = 0 }, "--session-commands"},
		{"rate", func(c *Config) { c.SessionRate = -1 }, "--session-rate"},
		{"sessions", func(c *Config) { c.MaxSessions = 0 }, "--max-sessions"},
		{"drain", func(c *Config) { c.Drain = -1 }, "--drain"},
		{"meters", func(c *Config) { c.Meters = "testdata/absent.csv" }, "--meters"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := Defaults()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := New(c); err != nil {
				t.Fatalf("the defaults: %v", err)
			}
			row.change(&c)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("New returned %v, want %s named", err, row.want)
			}
		})
	}
}

func TestDrainFinishesWhatIsOutstanding(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), func(c *Config) { c.Drain = time.Minute })
	taken := make(chan request, 2)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	busy, idle := n.session(t), n.session(t)
	busy.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001","stages":false}`)
	r := <-taken
	posted := make(chan int, 1)
	go func() {
		response, err := http.Post(n.URL()+"/v1/reads", "application/json", strings.NewReader(`{"concentrator":"101","meter":"101001"}`))
		if err != nil {
			posted <- 0
			return
		}
		response.Body.Close()
		posted <- response.StatusCode
	}()
	waiting := <-taken

	n.leave()
	if m := busy.want("draining"); m.ReconnectMS < 100 || m.ReconnectMS >= 2000 {
		t.Errorf("%s", m.text)
	}
	idle.want("draining")
	idle.wantClose(closeDrained)
	if _, _, err := websocket.Dial(t.Context(), strings.Replace(n.URL(), "http", "ws", 1), nil); err == nil {
		t.Error("a session was let in")
	}
	busy.send(`{"type":"read","id":"b","concentrator":"101","meter":"101002"}`)
	busy.wantFailed("b", meter.CodeDraining)
	answerAll(r)
	busy.wantStage("a", meter.StageDone)
	busy.wantClose(closeDrained)
	select {
	case err := <-n.left:
		t.Fatalf("the node left before the HTTP read was answered: %v", err)
	default:
	}
	answerAll(waiting)
	if status := <-posted; status != 200 {
		t.Errorf("the HTTP read ended with %d", status)
	}
	if err := <-n.left; err != nil {
		t.Error(err)
	}
}

func TestDrainAnswersForWhatTakesTooLong(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), func(c *Config) { c.Drain = 50 * time.Millisecond })
	taken := make(chan request, 1)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	<-taken
	n.leave()
	c.want("draining")
	c.wantFailed("a", meter.CodeDraining)
	c.wantClose(closeDrained)
	if err := <-n.left; err != nil {
		t.Error(err)
	}
}

// Neither a client that does not answer the close frame nor a connection that a browser opened in advance and never
// used may hold up a node that has nothing left to do.
func TestDrainWaitsForNobodyInVain(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), func(c *Config) { c.Drain = time.Hour })
	n.session(t) // does not read any more
	unused, err := net.Dial("tcp", strings.TrimPrefix(n.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer unused.Close()
	n.leave()
	select {
	case err := <-n.left:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the node does not leave")
	}
}

func TestAReadWaitsForNATSThatIsAwayForAMoment(t *testing.T) {
	dir := t.TempDir()
	s, err := bus.Embed("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(s.URL(), "nats://")
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.away = patience })
	p := connectPeer(t, s.URL())
	p.hold("101", answerAll)
	c := n.session(t)
	s.Close()
	until(t, "the edge has noticed", func() bool { return !n.connected() })
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001","stages":false}`)
	of := n.roster.all()[0]
	until(t, "the read is there", func() bool { return len(of.outstanding()) == 1 })
	if s, err = bus.Embed(address, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c.wantStage("a", meter.StageDone)
}

func TestNATSIsAwayForAWhile(t *testing.T) {
	dir := t.TempDir()
	s, err := bus.Embed("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(s.URL(), "nats://")
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.away = 0 })
	p := connectPeer(t, s.URL())
	taken := make(chan request, 10)
	p.hold("101", func(r request) { taken <- r })
	p.post(p.link("101", meter.LinkUp, time.Now()))

	c, page := n.session(t), n.page(t)
	c.send(`{"type":"presence","subscribe":true}`)
	until(t, "the link was told", func() bool {
		return strings.Contains(c.want("presence").text, `"concentrator":"101"`)
	})
	c.send(`{"type":"read","id":"lost","concentrator":"101","meter":"101001"}`)
	<-taken

	s.Close()
	until(t, "the edge has noticed", func() bool { return !n.connected() && n.lostAt.Load() > 0 })
	if status, body := n.get(t, "/readyz"); status != 503 || !strings.Contains(body, "cut off from NATS") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, _ := n.get(t, "/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	if status, body := n.get(t, "/v1/concentrators"); status != 503 {
		t.Errorf("/v1/concentrators: %d %s", status, body)
	}
	c.send(`{"type":"read","id":"away","concentrator":"101","meter":"101001"}`)
	if m := c.wantFailed("away", meter.CodeInternal); m.Error.Message != "the edge is cut off from NATS, try again" {
		t.Errorf("%s", m.text)
	}
	page.send(copyRequest)
	page.wantText("抄表应用未启动")

	if s, err = bus.Embed(address, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	// The read whose answer would have come meanwhile is asked for again, by the same id.
	if again := <-taken; again.ID.String() != "lost" {
		t.Errorf("asked again for %s", again.ID)
	} else {
		answerAll(again)
	}
	var sawFull, sawAnswer bool
	for !sawFull || !sawAnswer {
		switch m := c.next(); m.Type {
		case "presence":
			sawFull = sawFull || m.Full && len(m.Links) == 1
		case "answer":
			if m.ID.String() != "lost" || m.Stage != meter.StageDone {
				t.Fatalf("%s", m.text)
			}
			sawAnswer = true
		}
	}
	if status, body := n.get(t, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d %s", status, body)
	}
	page.send(copyRequest)
	answerAll(<-taken)
	page.wantText(`{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":101001.50,"IsDownCommand":true}`)
}

func TestNATSComesBackEmpty(t *testing.T) {
	s, err := bus.Embed("127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(s.URL(), "nats://")
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	p.post(p.link("101", meter.LinkUp, time.Now()))
	until(t, "the link is known", func() bool { return !n.board.empty() })
	s.Close()
	if s, err = bus.Embed(address, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	until(t, "the link is forgotten", n.board.empty)
	p.post(p.link("102", meter.LinkUp, time.Now()))
	until(t, "the new bucket is followed", func() bool { return !n.board.empty() })
}

func TestRunEndsWhileItWaitsForNATS(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + free.Addr().String()
	free.Close()
	c, err := Defaults()
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP, c.NATS = "127.0.0.1:0", nobody
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Run(ctx); err == nil || !strings.Contains(err.Error(), nobody) || errors.Is(err, net.ErrClosed) {
		t.Errorf("Run returned %v", err)
	}
}
