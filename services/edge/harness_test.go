package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func embedNATS(t *testing.T) *bus.Server {
	t.Helper()
	s, err := bus.Embed("127.0.0.1:0", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// node is an edge that runs, and how it ended once it was told to leave.
type node struct {
	*Edge
	leave func()
	left  <-chan error
}

// startEdge runs an edge on a free port; prepare may change it before.
func startEdge(t *testing.T, natsURL string, configure func(*Config), prepare ...func(*Edge)) node {
	t.Helper()
	c, err := Defaults()
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP, c.NATS, c.ID = "127.0.0.1:0", natsURL, "edge-1"
	if configure != nil {
		configure(&c)
	}
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prepare {
		p(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		left <- e.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-e.Ready():
	case err := <-left:
		t.Fatalf("the edge did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("the edge is not ready")
	}
	return node{e, cancel, left}
}

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// peer plays the gateway's part of the contract on NATS.
type peer struct {
	t  *testing.T
	nc *nats.Conn
}

func connectPeer(t *testing.T, natsURL string) peer {
	t.Helper()
	nc, err := bus.Connect(t.Context(), bus.Options{URL: natsURL, Name: "peer", Buffer: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return peer{t, nc}
}

// request is a command as it came in at the peer.
type request struct {
	meter.Command
	peer         peer
	concentrator meter.ConcentratorID
	message      *nats.Msg
}

// hold takes the commands of a concentrator until the returned function is called.
func (p peer) hold(concentrator string, take func(request)) (release func()) {
	p.t.Helper()
	c := mustConcentrator(p.t, concentrator)
	sub, err := p.nc.QueueSubscribe(meter.SubjectRead(c), meter.Queue, func(m *nats.Msg) {
		command, err := meter.ParseCommand(m.Data)
		if err != nil {
			p.t.Errorf("the edge sent %s: %v", m.Data, err)
			return
		}
		take(request{command, p, c, m})
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
	return func() {
		if err := sub.Unsubscribe(); err != nil {
			p.t.Error(err)
		}
		if err := p.nc.Flush(); err != nil {
			p.t.Error(err)
		}
	}
}

// tell sends a stage; more are further fields of the answer, as JSON.
func (r request) tell(stage meter.Stage, more string) {
	r.peer.t.Helper()
	if more != "" {
		more = "," + more
	}
	body := fmt.Sprintf(`{"id":"%s","concentrator":"%s","meter":"%s","stage":"%s","gateway":"gw-1"%s}`, r.ID, r.concentrator, r.Meter, stage, more)
	// A test may end while its peer still talks.
	if err := r.message.Respond([]byte(body)); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		r.peer.t.Error(err)
	}
}

func (r request) done(volume string) {
	r.tell(meter.StageDone, fmt.Sprintf(`"source":"wire","reading":{"volume_m3":%q,"settlement_m3":null,"clock":null,"status":{"valve":"open","battery":"ok"},"raw_status":"0000"}`, volume))
}

func (r request) fail(code meter.Code, text string) {
	r.tell(meter.StageFailed, fmt.Sprintf(`"error":{"code":"%s","message":%q,"retry":%v}`, code, text, code.Retry()))
}

// answerAll answers every command with a volume that names its meter.
func answerAll(r request) { r.done(volumeOf(r.Meter)) }

func volumeOf(m meter.Address) string { return strings.TrimLeft(m.String(), "0") + ".50" }

// links returns the bucket of links, as a gateway writes it.
func (p peer) links() jetstream.KeyValue {
	p.t.Helper()
	js, err := jetstream.New(p.nc)
	if err != nil {
		p.t.Fatal(err)
	}
	var kv jetstream.KeyValue
	until(p.t, "the bucket can be opened", func() bool {
		kv, err = js.KeyValue(p.t.Context(), meter.BucketLinks)
		return err == nil
	})
	return kv
}

func (p peer) post(l meter.Link) {
	p.t.Helper()
	if _, err := p.links().Put(p.t.Context(), l.Concentrator.String(), encode(l)); err != nil {
		p.t.Fatal(err)
	}
}

func (p peer) link(concentrator string, state meter.LinkState, since time.Time) meter.Link {
	g, err := meter.ParseGatewayID("gw-1")
	if err != nil {
		p.t.Fatal(err)
	}
	return meter.Link{Concentrator: mustConcentrator(p.t, concentrator), State: state, Since: since, Gateway: g, Driver: "cjt188"}
}

func mustConcentrator(t *testing.T, s string) meter.ConcentratorID {
	t.Helper()
	c, err := meter.ParseConcentratorID(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// client is a WebSocket client.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial opens a WebSocket, with a subprotocol unless it is empty.
func (n node) dial(t *testing.T, subprotocol string) client {
	t.Helper()
	o := &websocket.DialOptions{}
	if subprotocol != "" {
		o.Subprotocols = []string{subprotocol}
	}
	return n.dialWith(t, o)
}

func (n node) dialWith(t *testing.T, o *websocket.DialOptions) client {
	t.Helper()
	conn, response, err := websocket.Dial(t.Context(), strings.Replace(n.URL(), "http", "ws", 1), o)
	if err != nil {
		t.Fatal(err, response)
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	return client{t, conn}
}

// session opens a dianchao.v1 session and takes its hello.
func (n node) session(t *testing.T) client {
	t.Helper()
	c := n.dial(t, subprotocol)
	c.want("hello")
	return c
}

// page opens a connection of the ClickToCopy dialect and takes its greeting.
func (n node) page(t *testing.T) client {
	t.Helper()
	c := n.dial(t, "")
	c.wantText("连接成功")
	return c
}

func (c client) send(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) receive() (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, b, err := c.conn.Read(ctx)
	return string(b), err
}

func (c client) wantText(want string) {
	c.t.Helper()
	if got, err := c.receive(); err != nil || got != want {
		c.t.Fatalf("received %q, %v, want %q", got, err, want)
	}
}

// incoming is any message of dianchao.v1.
type incoming struct {
	meter.Answer
	Type        string
	Protocol    string
	Edge        string
	Session     string
	Version     string
	Limits      sessionLimits
	Full        bool
	Links       []meter.Link
	PingMS      int64 `json:"ping_ms"`
	ReconnectMS int64 `json:"reconnect_ms"`
	text        string
}

func (c client) next() incoming {
	c.t.Helper()
	text, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	m := incoming{text: text}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return m
}

// want takes the next message, which is of this type.
func (c client) want(kind string) incoming {
	c.t.Helper()
	m := c.next()
	if m.Type != kind {
		c.t.Fatalf("received %s, want a message of type %s", m.text, kind)
	}
	return m
}

// wantStage takes the next message, which is this stage of this read.
func (c client) wantStage(id string, stage meter.Stage) incoming {
	c.t.Helper()
	m := c.want("answer")
	if m.ID.String() != id || m.Stage != stage {
		c.t.Fatalf("received %s, want %s of %s", m.text, stage, id)
	}
	return m
}

// wantFailed takes the next message, which is the failed answer of this read.
func (c client) wantFailed(id string, code meter.Code) incoming {
	c.t.Helper()
	m := c.wantStage(id, meter.StageFailed)
	if m.Error.Code != code {
		c.t.Fatalf("received %s, want the code %s", m.text, code)
	}
	return m
}

// wantError takes the next message, which says that a message could not be used, and why in these words.
func (c client) wantError(id, words string) {
	c.t.Helper()
	m := c.want("error")
	if m.ID.String() != id || m.Error.Code != meter.CodeBadCommand || !strings.Contains(m.Error.Message, words) {
		c.t.Fatalf("received %s, want an error for %q with the words %q", m.text, id, words)
	}
}

// wantClose reads until the server closes with this code.
func (c client) wantClose(code websocket.StatusCode) {
	c.t.Helper()
	for {
		if _, err := c.receive(); err != nil {
			if got := websocket.CloseStatus(err); got != code {
				c.t.Fatalf("closed with %d (%v), want %d", got, err, code)
			}
			return
		}
	}
}
