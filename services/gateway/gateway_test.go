package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestACommandComesBack(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")

	a := ask(t, nc, "301", `{"id":"click","meter":"42","stages":true}`)
	f, _ := d.asked()
	if f.Address.String() != "00000000000042" {
		t.Fatalf("asked meter %s", f.Address)
	}
	d.answers(f, "123.40")
	var stages []string
	for {
		got := a.next()
		stages = append(stages, got.Stage.String())
		if got.Stage.Terminal() {
			if got.Reading.Volume.String() != "123.40" || got.ID.String() != "click" || got.Meter.String() != "42" ||
				got.Gateway.String() != "gw-1" || got.Source != meter.SourceWire || got.Frames == nil || got.Timing == nil {
				t.Fatalf("%+v", got)
			}
			break
		}
	}
	if want := "accepted sent done"; strings.Join(stages, " ") != want {
		t.Fatalf("stages %q, want %q", stages, want)
	}
}

func TestManyClicksOneFrame(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	var all []*asking
	for i := range 10 {
		all = append(all, ask(t, nc, "301", fmt.Sprintf(`{"meter":"%s1"}`, strings.Repeat("0", i))))
	}
	f, _ := d.asked()
	eventually(t, "all have arrived", func() bool { return held(g, "301") == 10 })
	d.answers(f, "5")
	sources := map[meter.Source]int{}
	for _, a := range all {
		sources[a.reads("5.00").Source]++
	}
	if sources[meter.SourceWire] != 1 || sources[meter.SourceShared] != 9 || len(d.requests) != 0 {
		t.Fatalf("sources %v, %d more requests", sources, len(d.requests))
	}
}

func held(g *Gateway, concentrator string) int {
	l := g.holder(must(meter.ParseConcentratorID(concentrator)))
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bus.Held()
}

func TestTheSameIDIsTheSameExchange(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	first := ask(t, nc, "301", `{"id":"x","meter":"1"}`)
	f, _ := d.asked()
	second := ask(t, nc, "301", `{"id":"x","meter":"1","stages":true}`)
	if got := second.next(); got.Stage != meter.StageSent {
		t.Fatalf("who asks again hears %s", got.Stage)
	}
	ask(t, nc, "301", `{"id":"x","meter":"2"}`).fails(meter.CodeBadCommand)
	d.answers(f, "7.00")
	first.reads("7.00")
	second.reads("7.00")
	ask(t, nc, "301", `{"id":"x","meter":"1"}`).reads("7.00")
	if n := len(d.requests); n != 0 {
		t.Fatalf("%d more requests", n)
	}
}

func TestCancel(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	flying := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	waiting := ask(t, nc, "301", `{"id":"w","meter":"2"}`)
	eventually(t, "both have arrived", func() bool { return held(g, "301") == 2 })
	for _, body := range []string{`{"id":"w"}`, `{"id":"nobody"}`, `{"id":"w"}`, `no JSON`, `{"id":"a.b"}`} {
		if err := nc.Publish("meter.cancel.301", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	waiting.fails(meter.CodeCancelled)
	d.answers(f, "1.00")
	flying.reads("1.00")
}

func TestDeadlinesTravelInTheHeader(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	for _, row := range []struct {
		name, header string
		want         meter.Code
	}{
		{"passed", meter.FormatDeadline(time.Now().Add(-time.Second)), meter.CodeExpired},
		{"no number", "soon", meter.CodeBadCommand},
		{"too far ahead", meter.FormatDeadline(time.Now().Add(time.Hour)), meter.CodeBadCommand},
		{"near", meter.FormatDeadline(time.Now().Add(200 * time.Millisecond)), meter.CodeMeterSilent},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := &nats.Msg{Subject: "meter.read.301", Data: []byte(`{"meter":"1"}`), Header: nats.Header{meter.HeaderDeadline: {row.header}}}
			askWith(t, nc, m).fails(row.want)
		})
	}
	d.asked() // the last one only
	if n := len(d.requests); n != 0 {
		t.Fatalf("%d more requests", n)
	}
}

func TestTheNewestLoginWins(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	older := dialIn(t, g, "301")
	up(t, nc, "301")
	lost := ask(t, nc, "301", `{"meter":"1"}`)
	older.asked()
	newer := dialIn(t, g, "301")
	if _, open := older.asked(); open {
		t.Fatal("the older link was asked again")
	}
	lost.fails(meter.CodeLinkLost)
	a := ask(t, nc, "301", `{"meter":"2"}`)
	f, _ := newer.asked()
	newer.answers(f, "2.00")
	a.reads("2.00")
	if l := known(t, nc, "301"); l.State != meter.LinkUp || l.Remote != newer.conn.LocalAddr().String() {
		t.Fatalf("the bucket says %+v", l)
	}
}

// known is what the bucket says of a concentrator.
func known(t *testing.T, nc *nats.Conn, concentrator string) (l meter.Link) {
	t.Helper()
	js := must(jetstream.New(nc))
	kv := must(js.KeyValue(t.Context(), meter.BucketLinks))
	e, err := kv.Get(t.Context(), concentrator)
	if err != nil {
		return l
	}
	if err := json.Unmarshal(e.Value(), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWhoLeavesIsDownWithAReason(t *testing.T) {
	url := embed(t)
	g, stop := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	dialIn(t, g, "302")
	up(t, nc, "301")
	up(t, nc, "302")
	d.conn.Close()
	eventually(t, "301 is down", func() bool { return known(t, nc, "301").State == meter.LinkDown })
	if l := known(t, nc, "301"); !strings.Contains(l.Reason, "closed the connection") || l.Since.IsZero() {
		t.Fatalf("%+v", l)
	}
	ask(t, nc, "301", `{"meter":"1","timeout_ms":100}`).fails(meter.CodeConcentratorOffline)
	stop()
	if l := known(t, nc, "302"); l.State != meter.LinkDown || !strings.Contains(l.Reason, "stopped") {
		t.Fatalf("after the gateway was stopped the bucket says %+v", l)
	}
}

// Who watches everything is a listener to NATS, so "no responders" does not come any more.
func TestAnOfflineConcentratorIsSaidAtOnceThoughSomebodyWatches(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	run(t, config(url, "gw-2"))
	nc := connect(t, url)
	must(nc.SubscribeSync("meter.>"))
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	d.conn.Close()
	eventually(t, "301 is down", func() bool { return known(t, nc, "301").State == meter.LinkDown })
	for concentrator, want := range map[string]string{"301": "closed the connection", "999": "never was online"} {
		a := ask(t, nc, concentrator, `{"id":"x","meter":"1","timeout_ms":100}`).fails(meter.CodeConcentratorOffline)
		if !strings.Contains(a.Error.Message, want) || a.ID.String() != "x" || a.Concentrator.String() != concentrator {
			t.Fatalf("%+v %v", a, a.Error)
		}
	}
	a := ask(t, nc, "3$1", `{"meter":"1"}`).fails(meter.CodeBadCommand)
	if !strings.Contains(a.Error.Message, "3$1") {
		t.Fatalf("%v", a.Error)
	}
}

func TestReadingsGoToTheStreamOnce(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	for i := range 5 {
		a := ask(t, nc, "301", `{"meter":"1"}`)
		f, _ := d.asked()
		d.answers(f, fmt.Sprint(i))
		a.reads(fmt.Sprintf("%d.00", i))
	}
	js := must(jetstream.New(nc))
	stream := must(js.Stream(t.Context(), meter.StreamReadings))
	eventually(t, "five readings are kept", func() bool { return must(stream.Info(t.Context())).State.Msgs == 5 })
}

func TestAnotherNameOnTheSameConnectionEndsIt(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	d.send([]byte("LOGIN:301")) // before a packet, as some DTUs do
	a := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	d.answers(f, "1")
	a.reads("1.00")
	d.send([]byte("LOGIN:302"))
	if _, open := d.asked(); open {
		t.Fatal("the link goes on under another name")
	}
	eventually(t, "301 is down", func() bool { return known(t, nc, "301").State == meter.LinkDown })
	if l := known(t, nc, "302"); l.State != 0 {
		t.Fatalf("the bucket knows %+v", l)
	}
}

func TestWhoDoesNotRegisterIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := must(New(config("", "gw-1")))
		near, far := net.Pipe()
		defer far.Close()
		l := newLink(g, g.driver("cjt188"), near, nil)
		g.add(l)
		began := time.Now()
		go func() { _, _ = far.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }()
		l.run()
		if waited := time.Since(began); waited != registrationTimeout {
			t.Fatalf("closed after %s, want %s", waited, registrationTimeout)
		}
		g.wait.Wait()
	})
}

// A peer that drips what might become a frame is never silent and never names itself.
func TestWhoDripsOrFloodsWithoutANameIsClosed(t *testing.T) {
	for name, every := range map[string]time.Duration{"drip": 200 * time.Millisecond, "flood": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(New(config("", "gw-1")))
				near, far := net.Pipe()
				l := newLink(g, g.driver("cjt188"), near, nil)
				g.add(l)
				go l.run()
				began := time.Now()
				for time.Since(began) < 3*registrationTimeout {
					if _, err := far.Write([]byte{0xFE}); err != nil {
						break
					}
					<-time.After(every)
				}
				far.Close()
				g.wait.Wait()
				if took := time.Since(began); took > registrationTimeout+time.Second {
					t.Fatalf("it was open for %s without a registration", took)
				}
			})
		})
	}
}

func TestTooManyLinks(t *testing.T) {
	url := embed(t)
	c := config(url, "gw-1")
	c.MaxLinks = 1
	g, _ := run(t, c)
	nc := connect(t, url)
	dialIn(t, g, "301")
	up(t, nc, "301")
	if _, open := dialIn(t, g, "302").asked(); open {
		t.Fatal("a second link was taken")
	}
}
