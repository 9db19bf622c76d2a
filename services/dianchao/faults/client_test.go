package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

const (
	meters = 20 // behind each concentrator
	// grace is how long after its deadline a command's answer may come.
	grace = time.Second
	// think is how long a client waits from one click to the next at least.
	think = 50 * time.Millisecond
	// lossy is of how many clicks one loses its connection.
	lossy = 5
)

func concentrator(s string) meter.ConcentratorID { return must(meter.ParseConcentratorID(s)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// client is somebody who clicks: a session of dianchao.v1 that loses its connection now and then, and then asks again
// with the same id. It is used by one goroutine.
type client struct {
	name   string
	url    string
	random *rand.Rand
	conn   *websocket.Conn
	clicks int
	// sent is called when a click is told that its frame went out.
	sent func()
}

func newClient(w *world, number int) *client {
	return &client{
		name: fmt.Sprint("client-", number), url: w.edge.URL(),
		random: rand.New(rand.NewPCG(1, uint64(number))), sent: func() {},
	}
}

func (c *client) dial(ctx context.Context) error {
	conn, _, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{Subprotocols: []string{"dianchao.v1"}})
	c.conn = conn
	return err
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.CloseNow()
		c.conn = nil
	}
}

var errNoAnswer = errors.New("no terminal answer by its deadline plus a second")

// click reads any meter of a concentrator and returns its terminal answer. The error says what the contract forbids.
func (c *client) click(ctx context.Context, of string, timeout time.Duration) (meter.Answer, error) {
	c.clicks++
	id := fmt.Sprint(c.name, "-", c.clicks)
	address := fmt.Sprintf("%s%03d", of, 1+c.random.IntN(meters))
	question := map[string]any{"type": "read", "id": id, "concentrator": of, "meter": address, "timeout_ms": timeout.Milliseconds()}
	loses := c.random.IntN(lossy) == 0
	for {
		a, lost, err := c.ask(ctx, id, question, timeout, loses)
		if !lost {
			if err == nil {
				err = judge(a, of, address)
			}
			if err != nil {
				err = fmt.Errorf("read %s of meter %s: %w", id, address, err)
			}
			return a, err
		}
		loses = false
	}
}

// ask sends the question and waits for its answer. lost says that the connection was given up before.
func (c *client) ask(ctx context.Context, id string, question any, timeout time.Duration, loses bool) (a meter.Answer, lost bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout+grace, errNoAnswer)
	defer cancel()
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return a, false, err
		}
	}
	if err := wsjson.Write(ctx, c.conn, question); err != nil {
		return a, false, err
	}
	for {
		a, err := c.hear(ctx)
		switch {
		case ctx.Err() != nil:
			c.close()
			return a, false, context.Cause(ctx)
		case err != nil:
			return a, false, err
		case a.ID.String() != id:
			return a, false, fmt.Errorf("%s came for %s, which has had its answer", a.Stage, a.ID)
		case a.Stage.Terminal():
			return a, false, nil
		case a.Stage == meter.StageSent:
			c.sent()
		}
		if loses {
			c.close()
			return a, true, nil
		}
	}
}

// hear returns the next stage of any read.
func (c *client) hear(ctx context.Context) (meter.Answer, error) {
	for {
		_, b, err := c.conn.Read(ctx)
		if err != nil {
			return meter.Answer{}, err
		}
		var m struct{ Type string }
		if err := json.Unmarshal(b, &m); err != nil {
			return meter.Answer{}, fmt.Errorf("%w: %s", err, b)
		}
		switch m.Type {
		case "hello":
			continue
		case "answer":
		default:
			return meter.Answer{}, fmt.Errorf("no answer: %s", b)
		}
		var a meter.Answer
		err = json.Unmarshal(b, &a)
		return a, err
	}
}

// judge returns an error if a terminal answer is not for this meter, or says what the meter never showed.
func judge(a meter.Answer, of, address string) error {
	switch {
	case a.Concentrator.String() != of || a.Meter.String() != address:
		return fmt.Errorf("the answer is for meter %s of %s", a.Meter, a.Concentrator)
	case a.Stage == meter.StageFailed && (a.Error == nil || a.Error.Message == ""):
		return errors.New("it failed without a word")
	case a.Stage == meter.StageFailed && a.Error.Code == meter.CodeLinkLost && a.Gateway.IsZero():
		// The edge says so after the deadline. But the gateway lives, it should have said so at once.
		return fmt.Errorf("the gateway forgot it: %w", a.Error)
	case a.Stage == meter.StageFailed:
		return nil
	case a.Reading == nil || a.Reading.Volume == nil:
		return errors.New("it is done without a reading")
	}
	shown := func(at time.Time) meter.Decimal { return simulator.Volume(a.Concentrator, a.Meter, at) }
	if v := a.Reading.Volume; v.Cmp(shown(a.At.Add(-time.Minute))) < 0 || v.Cmp(shown(a.At.Add(time.Minute))) > 0 {
		return fmt.Errorf("it is done with %s m³ at %s, the meter showed %s", v, a.At, shown(a.At))
	}
	return nil
}

// crowd is clients that click at the same time.
type crowd struct {
	mu      sync.Mutex
	tally   map[string]int // answers by "done" or their code
	longest time.Duration
}

// click lets n clients click until each was told enough. It fails the test for every answer that is missing, one too
// many, wrong, or failed with a code that is not among codes.
func (w *world) click(n int, of string, timeout time.Duration, codes []meter.Code, sent func(), enough func(clicks int) bool) *crowd {
	crowd := &crowd{tally: make(map[string]int)}
	var all sync.WaitGroup
	for i := range n {
		c := newClient(w, i)
		c.name += "-of-" + of
		c.sent = sent
		all.Go(func() {
			defer c.close()
			pace := time.NewTicker(think)
			defer pace.Stop()
			for !enough(c.clicks) {
				began := time.Now()
				a, err := c.click(w.t.Context(), of, timeout)
				if err == nil && a.Error != nil && !slices.Contains(codes, a.Error.Code) {
					err = fmt.Errorf("meter %s: %w", a.Meter, a.Error)
				}
				if err != nil {
					w.t.Error(err)
					return
				}
				crowd.add(a, time.Since(began))
				<-pace.C
			}
		})
	}
	all.Wait()
	return crowd
}

func (c *crowd) add(a meter.Answer, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = max(c.longest, took)
	if a.Error != nil {
		c.tally[a.Error.Code.String()]++
		return
	}
	c.tally["done"]++
}

// neighbours click on concentrators that must not notice anything, until the returned function is called; that
// returns once each has read enough meters, and fails the test for every read that failed.
func (w *world) neighbours(enough int, all ...string) (stop func()) {
	over := make(chan struct{})
	var clicking sync.WaitGroup
	for _, of := range all {
		clicking.Go(func() {
			crowd := w.click(1, of, 15*time.Second, nil, func() {}, func(clicks int) bool {
				select {
				case <-over:
					return clicks >= enough
				default:
					return false
				}
			})
			w.t.Logf("next to it, %s: %v, the longest %s", of, crowd.tally, crowd.longest)
		})
	}
	return sync.OnceFunc(func() { close(over); clicking.Wait() })
}

// reads returns once a meter of the concentrator was read.
func (w *world) reads(t *testing.T, of string) {
	t.Helper()
	c := newClient(w, 99)
	c.name += "-of-" + of
	defer c.close()
	eventually(t, of+" is read", func() bool {
		a, err := c.click(t.Context(), of, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return a.Stage == meter.StageDone
	})
}
