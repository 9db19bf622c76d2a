package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/meter"
)

func frames(t *testing.T, nc *nats.Conn, concentrator, body string) (l meter.FrameLog) {
	t.Helper()
	m, err := nc.Request("meter.frames."+concentrator, []byte(body), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(m.Data, &l); err != nil {
		t.Fatalf("%s: %v", m.Data, err)
	}
	return l
}

func kinds(l meter.FrameLog) string {
	var all []string
	for _, f := range l.Frames {
		s := f.Direction.String() + " " + f.Kind.String()
		if f.Count > 1 {
			s += fmt.Sprintf("×%d", f.Count)
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func TestTheFrameLogShowsWhatWentOverALink(t *testing.T) {
	url := embed(t)
	first, _ := run(t, config(url, "gw-1"))
	run(t, config(url, "gw-2"))
	nc := connect(t, url)
	d := dialIn(t, first, "301")
	up(t, nc, "301")
	d.send([]byte("LOGLOGLOG"))
	eventually(t, "the heartbeats are logged", func() bool { return strings.HasSuffix(kinds(frames(t, nc, "301", "")), "up heartbeat×3") })

	watching := must(nc.SubscribeSync(nats.NewInbox()))
	if err := nc.PublishRequest("meter.frames.301", watching.Subject, []byte(`{"last":1,"watch_ms":60000}`)); err != nil {
		t.Fatal(err)
	}
	var live []string
	next := func() {
		m := must(watching.NextMsg(patience))
		var l meter.FrameLog
		if err := json.Unmarshal(m.Data, &l); err != nil {
			t.Fatal(err)
		}
		live = append(live, kinds(l))
	}
	next()
	a := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	next()
	d.answers(f, "5")
	next()
	a.reads("5.00")
	if got := strings.Join(live, "; "); got != "up heartbeat×3; down request; up answer" {
		t.Fatalf("watched: %s", got)
	}

	l := frames(t, nc, "301", `{"last":2}`)
	if kinds(l) != "down request, up answer" || !strings.Contains(l.Frames[1].Meaning, "5.00 m³") || l.Gateway.String() != "gw-1" {
		t.Fatalf("%+v", l)
	}
	d.conn.Close()
	eventually(t, "301 is down", func() bool { return known(t, nc, "301").State == meter.LinkDown })
	if l := frames(t, nc, "301", ""); kinds(l) != "up registration, up heartbeat×3, down request, up answer" {
		t.Fatalf("after the link went down: %s", kinds(l))
	}
}

func TestFramesThatCannotBeTold(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	dialIn(t, g, "301")
	up(t, nc, "301")
	for _, row := range []struct {
		name, concentrator, body string
		want                     meter.Code
	}{
		{"a concentrator nobody knows", "999", "", meter.CodeConcentratorOffline},
		{"no JSON", "301", "all", meter.CodeBadCommand},
		{"too many", "301", `{"last":65}`, meter.CodeBadCommand},
		{"too long", "301", `{"watch_ms":60001}`, meter.CodeBadCommand},
		{"an illegal number", "3$1", "", meter.CodeBadCommand},
	} {
		t.Run(row.name, func(t *testing.T) {
			if l := frames(t, nc, row.concentrator, row.body); l.Error == nil || l.Error.Code != row.want {
				t.Fatalf("%+v", l)
			}
		})
	}
}

func TestTheFrameLogIsBounded(t *testing.T) {
	l := &frameLog{}
	for i := range 3 * meter.MaxFrames {
		l.add(meter.Up, meter.FrameNoise, fmt.Appendf(nil, "%d%s", i, strings.Repeat("x", 2*maxLoggedBytes)))
	}
	all := l.last(1000)
	if len(all) != meter.MaxFrames || len(l.frames) != meter.MaxFrames {
		t.Fatalf("%d frames are kept", len(all))
	}
	for i, f := range all {
		if want := fmt.Sprint(2*meter.MaxFrames+i) + "x"; !strings.HasPrefix(string(f.Bytes), want) || len(f.Bytes) != maxLoggedBytes {
			t.Fatalf("frame %d has %d bytes and begins %.5s, want %s", i, len(f.Bytes), f.Bytes, want)
		}
	}
	newer := &frameLog{}
	newer.add(meter.Up, meter.FrameHeartbeat, []byte("LOG"))
	newer.continues(l)
	if all := newer.last(1000); len(all) != meter.MaxFrames || string(all[len(all)-1].Bytes) != "LOG" {
		t.Fatalf("continued: %d frames, the last is %q", len(all), all[len(all)-1].Bytes)
	}
}

// After a takeover the older link may go on for a moment, and logs for itself.
func TestALinkThatTookOverKeepsTheFramesAsTheyWere(t *testing.T) {
	var older, newer frameLog
	for i := range meter.MaxFrames {
		older.add(meter.Down, meter.FrameRequest, []byte{byte(i)})
	}
	newer.continues(&older)
	older.add(meter.Down, meter.FrameRequest, []byte{0xFF})
	for i, f := range newer.last(meter.MaxFrames) {
		if f.Bytes[0] != byte(i) {
			t.Fatalf("frame %d has become %X", i, f.Bytes)
		}
	}
}

func TestALinksOwnTiming(t *testing.T) {
	url := embed(t)
	c := config(url, "gw-1")
	var slow Timing
	if err := slow.UnmarshalText([]byte("301=1m/5ms")); err != nil {
		t.Fatal(err)
	}
	c.Timings = []Timing{slow}
	c.Drivers.CJT188.ResponseTimeout = 50 * time.Millisecond
	g, _ := run(t, c)
	nc := connect(t, url)
	d, e := dialIn(t, g, "301"), dialIn(t, g, "302")
	up(t, nc, "301")
	up(t, nc, "302")
	patient := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	ask(t, nc, "302", `{"meter":"1"}`).fails(meter.CodeMeterSilent) // by then 301 would have been given up, too
	e.asked()
	d.answers(f, "3")
	patient.reads("3.00")
	for _, bad := range []string{"301", "301=1s", "301=x/1s", "3.1=1s/1s", "301=-1s/1s", "301=1s/-1s", "301=3m/1s"} {
		if err := slow.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
