package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

func TestALoginAtAnotherGatewayTakesOver(t *testing.T) {
	url := embed(t)
	first, _ := run(t, config(url, "gw-1"))
	second, _ := run(t, config(url, "gw-2"))
	nc := connect(t, url)
	older := dialIn(t, first, "301")
	up(t, nc, "301")
	flying := ask(t, nc, "301", `{"meter":"1"}`)
	older.asked()
	waiting := []*asking{
		ask(t, nc, "301", `{"id":"named","meter":"2"}`),
		ask(t, nc, "301", `{"meter":"3","stages":true}`),
		ask(t, nc, "301", `{"meter":"2"}`),
	}
	eventually(t, "all have arrived", func() bool { return held(first, "301") == 4 })

	// The older connection stays open at the device's end, as after a drop on the air.
	newer := dialIn(t, second, "301")
	flying.fails(meter.CodeLinkLost)
	go newer.serve()
	for i, want := range []string{"2.00", "3.00", "2.00"} {
		if a := waiting[i].reads(want); a.Gateway.String() != "gw-2" {
			t.Fatalf("answered by %s", a.Gateway)
		}
	}
	if _, open := older.asked(); open {
		t.Fatal("the older link was asked again")
	}
	eventually(t, "gw-1 has cleaned up", func() bool { return first.holder(must(meter.ParseConcentratorID("301"))) == nil })
	if l := known(t, nc, "301"); l.State != meter.LinkUp || l.Gateway.String() != "gw-2" {
		t.Fatalf("the older link's cleanup left %+v", l)
	}

	// And back again.
	again := dialIn(t, first, "301")
	eventually(t, "gw-2 has given it up", func() bool { return second.holder(must(meter.ParseConcentratorID("301"))) == nil })
	a := ask(t, nc, "301", `{"meter":"4"}`)
	f, _ := again.asked()
	again.answers(f, "4")
	a.reads("4.00")
}

func TestAGatewayWithoutNATSSendsItsConcentratorsAway(t *testing.T) {
	t.Parallel() // it waits for a lease to expire
	s := must(bus.Embed("127.0.0.1:0", t.TempDir()))
	g, stop := run(t, config(s.URL(), "gw-1"))
	defer stop()
	d := dialIn(t, g, "301")
	up(t, connect(t, s.URL()), "301")
	s.Close()
	if _, open := d.asked(); open {
		t.Fatal("it was asked")
	}
	if _, open := dialIn(t, g, "301").asked(); open {
		t.Fatal("it was taken in again")
	}
}

// cluster starts three NATS servers, processes of their own, that form a cluster, and returns the URL of each.
func cluster(t *testing.T) []string {
	t.Helper()
	program, err := filepath.Abs("../../.tools/nats-server")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Fatalf("nats-server is not there, run make tools: %v", err)
	}
	var ports []string
	for range 6 {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
		l.Close()
	}
	var urls, routes []string
	for i := range 3 {
		urls, routes = append(urls, "nats://127.0.0.1:"+ports[i]), append(routes, "nats://127.0.0.1:"+ports[3+i])
	}
	for i := range 3 {
		server := exec.Command(program, "-js", "-sd", t.TempDir(), "-a", "127.0.0.1", "-p", ports[i], "-n", fmt.Sprint("nats-", i),
			"--cluster_name", "town", "--cluster", routes[i], "--routes", strings.Join(routes, ","))
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	}
	for _, url := range urls {
		js := must(jetstream.New(connect(t, url)))
		eventually(t, "the cluster has a leader", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := js.AccountInfo(ctx)
			return err == nil
		})
	}
	return urls
}

// volumeOf is what a meter of these tests says, so that a mixed-up answer shows.
func volumeOf(address string) string { return strings.TrimLeft(address, "0") + ".00" }

// serve answers whatever is asked until the connection ends.
func (d *dtu) serve() {
	for f := range d.requests {
		v := must(meter.ParseDecimal(volumeOf(f.Address.String())))
		if _, err := d.conn.Write(must(f.Answer(meter.Reading{Volume: &v})).Append(nil)); err != nil {
			return
		}
	}
}

// A concentrator that reconnects to another gateway a hundred times while people click.
func TestAConcentratorThatHopsUnderLoad(t *testing.T) {
	const hops, clickers = 100, 8
	urls := cluster(t)
	var gateways []*Gateway
	for i, url := range urls {
		c := config(url, fmt.Sprint("gw-", i))
		c.Storage.Replicas = 3
		g, _ := run(t, c)
		gateways = append(gateways, g)
	}
	var links sync.WaitGroup
	var plugged []*dtu
	defer func() {
		for _, d := range plugged {
			d.conn.Close()
		}
		links.Wait()
	}()
	hop := func(n int) *dtu {
		d := dialIn(t, gateways[n%len(gateways)], "301")
		plugged = append(plugged, d)
		links.Go(d.serve)
		return d
	}
	d := hop(0)
	up(t, connect(t, urls[0]), "301")

	stop := make(chan struct{})
	var clicks sync.WaitGroup
	var tally tally
	for i := range clickers {
		nc := connect(t, urls[i%len(urls)])
		clicks.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				tally.click(t, nc, fmt.Sprintf("%d-%d", i, n), fmt.Sprint(1+random.IntN(50)))
			}
		})
	}
	for n := 1; n <= hops; n++ {
		before := tally.done()
		next := hop(n)
		if n%2 == 0 {
			d.conn.Close() // half of the time the older connection stays open at the device's end
		}
		d = next
		eventually(t, "reads come back after a hop", func() bool { return tally.done() > before })
	}
	close(stop)
	clicks.Wait()
	t.Logf("%d hops, answers: %v", hops, tally.codes)
}

// tally counts how commands ended.
type tally struct {
	mu    sync.Mutex
	codes map[string]int
}

func (y *tally) add(code string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.codes == nil {
		y.codes = make(map[string]int)
	}
	y.codes[code]++
}

func (y *tally) done() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.codes["done"]
}

// click reads one meter and holds the contract against what comes: one terminal answer in time, of this meter. Like
// an edge it asks again with the same id when it has heard nothing for a second.
func (y *tally) click(t *testing.T, nc *nats.Conn, id, address string) {
	const timeout = 5 * time.Second
	m, err := clickOnce(nc, fmt.Sprintf(`{"id":%q,"meter":%q,"timeout_ms":%d}`, id, address, timeout.Milliseconds()), timeout+time.Second)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		y.add("no responders")
		return
	case err != nil:
		y.add("lost")
		t.Errorf("command %s has no answer: %v", id, err)
		return
	}
	var a meter.Answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Errorf("%s: %v", m.Data, err)
		return
	}
	if a.ID.String() != id || a.Meter.String() != address {
		t.Errorf("asked %s %s, answered %s %s", id, address, a.ID, a.Meter)
	}
	if a.Error != nil {
		y.add(a.Error.Code.String())
		return
	}
	if got := a.Reading.Volume.String(); got != volumeOf(address) {
		t.Errorf("meter %s was given %s m³", address, got)
	}
	y.add("done")
}

func clickOnce(nc *nats.Conn, body string, patience time.Duration) (m *nats.Msg, err error) {
	inbox := nats.NewInbox()
	sub := must(nc.SubscribeSync(inbox))
	defer func() { _ = sub.Unsubscribe() }()
	for over := time.Now().Add(patience); time.Now().Before(over); {
		if err := nc.PublishRequest("meter.read.301", inbox, []byte(body)); err != nil {
			return nil, err
		}
		if m, err = sub.NextMsg(time.Second); !errors.Is(err, nats.ErrTimeout) {
			return m, err
		}
	}
	return m, err
}
