package gateway

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// told returns what a registry tells now: name{labels}, labels by name, to its value; of a histogram, how many it saw.
func told(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for _, family := range must(r.Gather()) {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all[strings.TrimPrefix(family.GetName(), "dianchao_gateway_")+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

// tells waits until a registry tells all that is wanted.
func tells(t *testing.T, r *prometheus.Registry, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		eventually(t, fmt.Sprintf("%s is %v", name, value), func() bool {
			got, known := told(t, r)[name]
			if !known {
				t.Fatalf("there is no %s", name)
			}
			return got == value
		})
	}
}

// watched is config with a registry of its own.
func watched(url, id string) (Config, *prometheus.Registry) {
	c, r := config(url, id), prometheus.NewRegistry()
	c.Metrics = r
	return c, r
}

func TestMetricsOfWhatHappensOnALink(t *testing.T) {
	url := embed(t)
	c, r := watched(url, "gw-1")
	c.Drivers.CJT188.ResponseTimeout = 100 * time.Millisecond
	g, stop := run(t, c)
	if err := g.Able(); err != nil {
		t.Fatal(err)
	}
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	tells(t, r, map[string]float64{
		"links{driver=cjt188}": 1, "concentrators{driver=cjt188}": 1, "links{driver=clicktocopy}": 0, "nats_connected{}": 1, "draining{}": 0,
	})

	a := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	tells(t, r, map[string]float64{"queue_depth{}": 1, "queue_depth_max{}": 1})
	d.answers(f, "1.00")
	a.reads("1.00")
	tells(t, r, map[string]float64{
		"commands_total{driver=cjt188,outcome=done}": 1, "exchanges_total{driver=cjt188,result=answered}": 1,
		"exchange_seconds{driver=cjt188}": 1, "queue_depth{}": 0, "readings_pending{}": 0,
	})

	a = ask(t, nc, "301", `{"meter":"2"}`)
	f, _ = d.asked()
	a.fails(meter.CodeMeterSilent)
	d.answers(f, "2.00")
	tells(t, r, map[string]float64{
		"commands_total{driver=cjt188,outcome=meter_silent}": 1, "exchanges_total{driver=cjt188,result=silent}": 1, "late_answers_total{driver=cjt188}": 1,
	})

	a = ask(t, nc, "301", `{"meter":"3"}`)
	d.asked()
	d.conn.Close()
	a.fails(meter.CodeLinkLost)
	tells(t, r, map[string]float64{
		"commands_total{driver=cjt188,outcome=link_lost}": 1, "exchanges_total{driver=cjt188,result=link_lost}": 1,
		"links{driver=cjt188}": 0, "concentrators{driver=cjt188}": 0,
		"exchanges_total{driver=cjt188,result=answered}": 1, "exchanges_total{driver=cjt188,result=silent}": 1, "readings_lost_total{}": 0,
	})

	stop()
	tells(t, r, map[string]float64{"draining{}": 1, "nats_connected{}": 0})
	if err := g.Able(); err == nil {
		t.Fatal("a gateway that left is able")
	}
}

func TestMetricsOfATakeover(t *testing.T) {
	url := embed(t)
	c1, r1 := watched(url, "gw-1")
	c2, r2 := watched(url, "gw-2")
	first, _ := run(t, c1)
	second, _ := run(t, c2)
	nc := connect(t, url)
	older := dialIn(t, first, "301")
	up(t, nc, "301")
	flying := ask(t, nc, "301", `{"meter":"1"}`)
	older.asked()
	waiting := ask(t, nc, "301", `{"meter":"2"}`)
	eventually(t, "both have arrived", func() bool { return held(first, "301") == 2 })
	refused := told(t, r2)["commands_total{driver=none,outcome=bad_command}"]

	newer := dialIn(t, second, "301")
	flying.fails(meter.CodeLinkLost)
	go newer.serve()
	waiting.reads("2.00")
	tells(t, r1, map[string]float64{"takeovers_total{to=elsewhere}": 1, "takeovers_total{to=here}": 0, "handed_over_total{}": 1})
	tells(t, r2, map[string]float64{
		"takeovers_total{to=elsewhere}": 0, "handed_over_total{}": 0, "commands_total{driver=cjt188,outcome=done}": 1,
		// That gw-1 asked whether gw-2 listens was no command.
		"commands_total{driver=none,outcome=bad_command}": refused,
	})

	dialIn(t, second, "301")
	tells(t, r2, map[string]float64{"takeovers_total{to=here}": 1})
}

func TestCommandsThatNATSDropsAreCounted(t *testing.T) {
	url := embed(t)
	r := prometheus.NewRegistry()
	c := config(url, "gw-1")
	c.Metrics = r
	g := must(New(c))
	nc := connect(t, url)
	full := make(chan *nats.Msg, 1)
	h := &holding{sub: must(nc.ChanSubscribe("meter.read.301", full))}
	for range 4 {
		if err := nc.Publish("meter.read.301", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three are dropped and counted once", func() bool {
		g.metrics.countDrops(h)
		return told(t, r)["dropped_commands_total{}"] == 3
	})
}

func TestAFailedCommandIsLoggedUnlessItsEdgeDoes(t *testing.T) {
	url := embed(t)
	var out bytes.Buffer
	g := must(New(config(url, "gw-1")))
	g.failures = telemetry.NewFailureLog(slog.New(slog.NewTextHandler(&out, nil)))
	m := &nats.Msg{Subject: "meter.read.301", Data: []byte(`{"id":"x","meter":"1"}`)}
	failed := meter.Answer{
		ID: must(meter.ParseCommandID("x")), Concentrator: must(meter.ParseConcentratorID("301")), Meter: must(meter.ParseAddress("1")),
		Stage: meter.StageFailed, Error: meter.Errorf(meter.CodeBusy, "full"),
	}
	for _, row := range []struct {
		name, reply, body string
		lines             int
	}{
		{"asked by an edge", "meter.reply.edge-1.s.x", `{"id":"x","meter":"1"}`, 0},
		{"asked by hand", "_INBOX.1.2", `{"id":"x","meter":"1"}`, 1},
		{"asked without a reply", "", `{"id":"x","meter":"1"}`, 1},
		{"another gateway asks whether we listen", "_INBOX.1.2", listening, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			out.Reset()
			m.Reply, m.Data = row.reply, []byte(row.body)
			g.countRefusal(m, failed)
			if n := strings.Count(out.String(), "\n"); n != row.lines {
				t.Fatalf("%d lines: %s", n, &out)
			}
			for _, want := range []string{"id=x", "concentrator=301", "meter=1", "code=busy", "level=WARN"} {
				if row.lines > 0 && !strings.Contains(out.String(), want) {
					t.Errorf("%s does not say %s", &out, want)
				}
			}
		})
	}
}

func TestTheTraceFollowsACommandToItsNewLink(t *testing.T) {
	url := embed(t)
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	tracer := provider.Tracer("test")
	c1, c2 := config(url, "gw-1"), config(url, "gw-2")
	c1.Tracer, c2.Tracer = tracer, tracer
	first, _ := run(t, c1)
	second, _ := run(t, c2)
	nc := connect(t, url)
	older := dialIn(t, first, "301")
	up(t, nc, "301")
	flying := ask(t, nc, "301", `{"meter":"1"}`)
	older.asked()

	_, click := tracer.Start(t.Context(), "click")
	m := &nats.Msg{Subject: "meter.read.301", Data: []byte(`{"meter":"2"}`), Header: nats.Header{}}
	telemetry.Inject(click, m.Header)
	click.End()
	waiting := askWith(t, nc, m)
	eventually(t, "both have arrived", func() bool { return held(first, "301") == 2 })
	newer := dialIn(t, second, "301")
	flying.fails(meter.CodeLinkLost)
	go newer.serve()
	waiting.reads("2.00")

	// From the click to the command at gw-1, to the command at gw-2, to its exchange.
	parent := click.SpanContext().SpanID()
	for _, name := range []string{"command", "command", "exchange"} {
		var child *tracetest.SpanStub
		eventually(t, "the next span has ended", func() bool {
			for _, s := range spans.GetSpans() {
				if s.Parent.SpanID() == parent && s.SpanContext.TraceID() == click.SpanContext().TraceID() {
					child = &s
				}
			}
			return child != nil
		})
		if child.Name != name {
			t.Fatalf("%s, want %s", child.Name, name)
		}
		parent = child.SpanContext.SpanID()
	}
}
