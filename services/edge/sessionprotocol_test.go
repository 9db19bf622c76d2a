package edge

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/meter"
)

// These tests follow docs/browser.md, "dianchao.v1", from hello to the close codes.

func TestHello(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), func(c *Config) { c.Version = "v1.2" })
	m := n.dial(t, subprotocol).want("hello")
	if m.Protocol != "dianchao.v1" || m.Edge != "edge-1" || m.Session == "" || m.Version != "v1.2" || m.PingMS != 30000 ||
		m.Limits != (sessionLimits{Commands: 64, MessageBytes: 4096, TimeoutMS: 120000}) {
		t.Errorf("hello is %s", m.text)
	}
}

func TestReadTellsStagesAndThenTheAnswerAsTheGatewayGaveIt(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	before := time.Now()
	connectPeer(t, s.URL()).hold("101", func(r request) {
		if !r.Stages || r.Timeout != 9*time.Second || r.MaxAge != time.Second {
			t.Errorf("the command is %s", r.message.Data)
		}
		deadline, err := meter.ParseDeadline(r.message.Header.Get(meter.HeaderDeadline))
		if err != nil || deadline.Before(before.Add(8*time.Second)) || deadline.After(time.Now().Add(9*time.Second)) {
			t.Errorf("the deadline is %v, %v", deadline, err)
		}
		r.tell(meter.StageAccepted, "")
		r.tell(meter.StageQueued, `"position":2`)
		r.tell(meter.StageSent, "")
		r.tell(meter.StageDone, `"a field of tomorrow":[1, 2],"reading":{"volume_m3":"123.40"}`)
		r.tell(meter.StageSent, "") // too late for anybody
	})
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001","timeout_ms":9000,"max_age_ms":1000}`)
	c.wantStage("a", meter.StageAccepted)
	if m := c.wantStage("a", meter.StageQueued); m.Position != 2 {
		t.Errorf("position is %d", m.Position)
	}
	c.wantStage("a", meter.StageSent)
	m := c.wantStage("a", meter.StageDone)
	want := `{"type":"answer","id":"a","concentrator":"101","meter":"101001","stage":"done","gateway":"gw-1","a field of tomorrow":[1, 2],"reading":{"volume_m3":"123.40"}}`
	if m.text != want {
		t.Errorf("the answer is\n%s\nwant\n%s", m.text, want)
	}
	c.send(`{"type":"ping"}`)
	c.want("pong")
	until(t, "the late stage was counted", func() bool { return n.late.Load() == 1 })
}

func TestReadWithoutStagesHasOnlyItsAnswer(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		if r.Stages {
			t.Errorf("the command is %s", r.message.Data)
		}
		r.tell(meter.StageAccepted, "")
		answerAll(r)
	})
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001","stages":false}`)
	c.wantStage("a", meter.StageDone)
}

func TestReadAgainWhileItIsOutstanding(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	taken := make(chan request, 2)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	r := <-taken
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	c.wantError("a", "outstanding already")
	answerAll(r)
	c.wantStage("a", meter.StageDone)
	// After its answer the id can be used again.
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	answerAll(<-taken)
	c.wantStage("a", meter.StageDone)
}

func TestMessagesThatCannotBeUsed(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	c := n.session(t)
	for _, row := range []struct{ name, text, id, words string }{
		{"no JSON", `hello`, "", "JSON object"},
		{"an array", `[1]`, "", "JSON object"},
		{"cut off", `{"type":"read"`, "", "not valid JSON"},
		{"no type", `{"id":"a"}`, "a", `"type" is missing`},
		{"unknown type", `{"type":"write","id":"a"}`, "a", "write"},
		{"type is a number", `{"type":1,"id":"a"}`, "a", `"type"`},
		{"no id", `{"type":"read","concentrator":"101","meter":"101001"}`, "", `"id" is missing`},
		{"illegal id", `{"type":"read","id":"a b","concentrator":"101","meter":"101001"}`, "", "a b"},
		{"no concentrator", `{"type":"read","id":"a","meter":"101001"}`, "a", `"concentrator" is missing`},
		{"illegal concentrator", `{"type":"read","concentrator":"10.1","meter":"101001","id":"a"}`, "a", "10.1"},
		{"concentrator is a number", `{"type":"read","id":"a","concentrator":101,"meter":"101001"}`, "a", `"concentrator"`},
		{"no meter", `{"type":"read","id":"a","concentrator":"101"}`, "a", `"meter" is missing`},
		{"illegal meter", `{"type":"read","id":"a","concentrator":"101","meter":">"}`, "a", `">"`},
		{"timeout too long", `{"type":"read","id":"a","concentrator":"101","meter":"101001","timeout_ms":120001}`, "a", "timeout_ms"},
		{"timeout of nothing", `{"type":"read","id":"a","concentrator":"101","meter":"101001","timeout_ms":0}`, "a", "timeout_ms"},
		{"stages is a text", `{"type":"read","id":"a","concentrator":"101","meter":"101001","stages":"yes"}`, "a", `"stages"`},
		{"cancel without id", `{"type":"cancel"}`, "", `"id" is missing`},
		{"cancel of nothing", `{"type":"cancel","id":"zz"}`, "zz", "no read with the id zz"},
		{"presence without wish", `{"type":"presence"}`, "", `"subscribe" is missing`},
		{"not UTF-8", "{\"type\":\"ping\xff\"}", "", "UTF-8"},
		{"too large", `{"type":"ping","x":"` + strings.Repeat("x", meter.MaxCommandBytes) + `"}`, "", "4096 bytes"},
		{"just below 1 MiB", strings.Repeat(" ", readLimit), "", "4096 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.conn}
			c.send(row.text)
			c.wantError(row.id, row.words)
			c.send(`{"type":"ping","unknown":{}}`)
			c.want("pong")
		})
	}
}

func TestConnectionsThatAreClosed(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	t.Run("a message of more than 1 MiB", func(t *testing.T) {
		c := n.session(t)
		c.send(strings.Repeat(" ", readLimit+1))
		c.wantClose(websocket.StatusMessageTooBig)
	})
	t.Run("a binary message", func(t *testing.T) {
		c := n.session(t)
		if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		c.wantClose(closeUnsupported)
	})
	t.Run("an unknown subprotocol", func(t *testing.T) {
		c := n.dial(t, "dianchao.v2")
		if _, err := c.receive(); websocket.CloseStatus(err) != closeUnsupported || !strings.Contains(err.Error(), "dianchao.v1") {
			t.Errorf("closed with %v", err)
		}
	})
}

func TestCancelIsTheGatewaysToAnswer(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	taken := make(chan request, 1)
	p.hold("101", func(r request) { taken <- r })
	if _, err := p.nc.Subscribe(meter.SubjectCancels, func(m *nats.Msg) {
		if m.Subject != "meter.cancel.101" || string(m.Data) != `{"id":"a"}` {
			t.Errorf("%s: %s", m.Subject, m.Data)
		}
		(<-taken).fail(meter.CodeCancelled, "withdrawn")
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	c.send(`{"type":"cancel","id":"a"}`)
	if m := c.wantFailed("a", meter.CodeCancelled); m.Error.Message != "withdrawn" {
		t.Errorf("the answer is %s", m.text)
	}
}

func TestCancelEndsWithoutAGateway(t *testing.T) {
	s := embedNATS(t)
	t.Run("one that fell silent", func(t *testing.T) {
		n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.cancelled = 20 * time.Millisecond })
		taken := make(chan request, 1)
		connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
		c := n.session(t)
		c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001","timeout_ms":120000}`)
		<-taken
		c.send(`{"type":"cancel","id":"a"}`)
		c.wantFailed("a", meter.CodeCancelled)
	})
	t.Run("none holds the concentrator yet", func(t *testing.T) {
		n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.unheld = []time.Duration{time.Minute} })
		c := n.session(t)
		c.send(`{"type":"read","id":"a","concentrator":"404","meter":"101001","timeout_ms":120000}`)
		c.send(`{"type":"cancel","id":"a"}`)
		c.wantFailed("a", meter.CodeCancelled)
	})
}

func TestPresenceIsASnapshotAndThenChanges(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	c := n.session(t)
	c.send(`{"type":"presence","subscribe":true}`)
	if m := c.want("presence"); m.text != `{"type":"presence","full":true,"links":[]}` {
		t.Errorf("the first snapshot is %s", m.text)
	}
	since := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	up := p.link("101", meter.LinkUp, since)
	up.Remote = "10.1.2.3:40112"
	p.post(up)
	if m := c.want("presence"); m.Full || len(m.Links) != 1 || m.Links[0] != up {
		t.Errorf("the change is %s", m.text)
	}
	p.post(p.link("102", meter.LinkUp, since))
	c.want("presence")
	down := p.link("101", meter.LinkDown, since.Add(time.Minute))
	down.Reason = "the concentrator closed the connection"
	p.post(down)
	if m := c.want("presence"); m.Full || len(m.Links) != 1 || m.Links[0] != down {
		t.Errorf("the change is %s", m.text)
	}

	late := n.session(t)
	late.send(`{"type":"presence","subscribe":true}`)
	if m := late.want("presence"); !m.Full || len(m.Links) != 2 {
		t.Errorf("the snapshot is %s", m.text)
	}
	late.send(`{"type":"presence","subscribe":false}`)
	late.send(`{"type":"ping"}`)
	late.want("pong")

	// An entry that is gone makes the next message a full one.
	if err := p.links().Delete(t.Context(), "102"); err != nil {
		t.Fatal(err)
	}
	if m := c.want("presence"); !m.Full || len(m.Links) != 1 || m.Links[0] != down {
		t.Errorf("after the deletion: %s", m.text)
	}
	// Who unsubscribed hears of none of it.
	late.send(`{"type":"ping"}`)
	late.want("pong")
}

func TestLimitsOfASession(t *testing.T) {
	s := embedNATS(t)
	taken := make(chan request, 10)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	t.Run("too many commands", func(t *testing.T) {
		n := startEdge(t, s.URL(), func(c *Config) { c.SessionCommands = 1 })
		c := n.session(t)
		c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
		r := <-taken
		c.send(`{"type":"read","id":"b","concentrator":"101","meter":"101002"}`)
		c.wantFailed("b", meter.CodeTooManyCommands)
		answerAll(r)
		c.wantStage("a", meter.StageDone)
		c.send(`{"type":"read","id":"b","concentrator":"101","meter":"101002"}`)
		answerAll(<-taken)
		c.wantStage("b", meter.StageDone)
	})
	t.Run("too fast", func(t *testing.T) {
		n := startEdge(t, s.URL(), func(c *Config) { c.SessionRate = 0.001 })
		c := n.session(t)
		c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
		<-taken
		c.send(`{"type":"read","id":"b","concentrator":"101","meter":"101002"}`)
		m := c.wantFailed("b", meter.CodeRateLimited)
		if m.Concentrator.String() != "101" || m.Meter.String() != "101002" {
			t.Errorf("the answer is %s", m.text)
		}
	})
}

func TestClientThatReadsTooSlowly(t *testing.T) {
	s := embedNATS(t)
	// More than the sockets' buffers and the queue hold.
	connectPeer(t, s.URL()).hold("101", func(r request) {
		for range 4 * sendQueue {
			r.tell(meter.StageQueued, `"padding":"`+strings.Repeat("x", 16<<10)+`"`)
		}
		answerAll(r)
	})
	smallBuffer := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return conn, conn.(*net.TCPConn).SetReadBuffer(256 << 10)
	}}
	open := func(t *testing.T, n node) client {
		c := n.dialWith(t, &websocket.DialOptions{Subprotocols: []string{subprotocol}, HTTPClient: &http.Client{Transport: smallBuffer}})
		c.want("hello")
		c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
		return c
	}
	t.Run("is closed once its queue is full", func(t *testing.T) {
		n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.write, e.pace.handshake = time.Minute, time.Minute })
		c := open(t, n)
		of := n.roster.all()[0]
		until(t, "the answer was queued", func() bool { return len(of.idle) == 1 })
		c.wantClose(closeTooSlow)
	})
	t.Run("is cut off once a write takes too long", func(t *testing.T) {
		n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.write = 50 * time.Millisecond })
		open(t, n)
		until(t, "its session is gone", func() bool { return len(n.roster.all()) == 0 })
	})
}

func TestSilentClientIsClosed(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil, func(e *Edge) {
		e.pace.ping, e.pace.silence = 500*time.Millisecond, 3*time.Second
	})
	answering := n.session(t)
	heard := make(chan error, 1)
	go func() {
		_, err := answering.receive() // the library answers pings while it reads
		heard <- err
	}()
	silent := n.dialWith(t, &websocket.DialOptions{
		Subprotocols:   []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool { return false },
	})
	silent.wantClose(closeSilent)
	answering.send(`{"type":"ping"}`)
	if err := <-heard; err != nil {
		t.Errorf("the client that answers pings was closed: %v", err)
	}
}

func TestClientThatLeavesIsForgottenNotCancelled(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	taken := make(chan request, 2)
	p.hold("101", func(r request) { taken <- r })
	cancels, err := p.nc.SubscribeSync(meter.SubjectCancels)
	if err != nil {
		t.Fatal(err)
	}
	const ask = `{"type":"read","id":"a","concentrator":"101","meter":"101001"}`
	first := n.session(t)
	first.send(ask)
	r := <-taken
	first.conn.CloseNow()
	until(t, "the session is gone", func() bool { return len(n.roster.all()) == 0 })
	answerAll(r)
	until(t, "the answer was dropped", func() bool { return n.late.Load() == 1 })

	second := n.session(t)
	second.send(ask)
	again := <-taken
	if again.ID != r.ID || again.message.Reply == r.message.Reply {
		t.Errorf("asked again as %s, answers to %s", again.ID, again.message.Reply)
	}
	answerAll(again)
	second.wantStage("a", meter.StageDone)
	if waiting, _, err := cancels.Pending(); err != nil || waiting != 0 {
		t.Errorf("%d reads were cancelled, %v", waiting, err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		for _, none := range []string{``, `nonsense`, `{}`, `{"id":"a","stage":"cooked"}`, `{"id":"b","stage":"done"}`, `[]`} {
			if err := r.message.Respond([]byte(none)); err != nil {
				t.Error(err)
			}
		}
		answerAll(r)
	})
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	if m := c.wantStage("a", meter.StageDone); m.Reading.Volume.String() != "101001.50" {
		t.Errorf("the answer is %s", m.text)
	}
}

// The contract of a busy day: many clients at once, nobody gets what another asked for.
func TestFiftyClientsAtOnce(t *testing.T) {
	const clients, reads, concentrators = 50, 20, 5
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	for i := range concentrators {
		p.hold(fmt.Sprint(101+i), func(r request) {
			r.tell(meter.StageAccepted, "")
			answerAll(r)
		})
	}
	for i := range clients {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			c := n.session(t)
			wanted := map[string]string{}
			for j := range reads {
				id, m := fmt.Sprintf("id-%d", j), fmt.Sprintf("%d%03d", i+1, j)
				wanted[id] = m
				c.send(fmt.Sprintf(`{"type":"read","id":"%s","concentrator":"%d","meter":"%s"}`, id, 101+(i+j)%concentrators, m))
			}
			for len(wanted) > 0 {
				a := c.want("answer")
				if a.Stage != meter.StageDone {
					if a.Stage == meter.StageFailed {
						t.Fatalf("failed: %s", a.text)
					}
					continue
				}
				m := wanted[a.ID.String()]
				delete(wanted, a.ID.String())
				if a.Meter.String() != m || a.Reading.Volume.String() != m+".50" {
					t.Errorf("asked for %s, got %s", m, a.text)
				}
			}
		})
	}
}
