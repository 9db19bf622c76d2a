package edge

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
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
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all[strings.TrimPrefix(family.GetName(), "dianchao_edge_")+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

// tells waits until a registry tells all that is wanted.
func tells(t *testing.T, r *prometheus.Registry, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		until(t, fmt.Sprintf("%s is %v", name, value), func() bool {
			got, known := told(t, r)[name]
			if !known {
				t.Fatalf("there is no %s", name)
			}
			return got == value
		})
	}
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func TestMetricsOfSessionsAndCommands(t *testing.T) {
	s := embedNATS(t)
	p := connectPeer(t, s.URL())
	registry, log := prometheus.NewRegistry(), &lines{}
	n := startEdge(t, s.URL(), func(c *Config) { c.Metrics, c.SessionCommands, c.MaxSessions = registry, 1, 2 }, func(e *Edge) {
		e.pace.reask = 50 * time.Millisecond
		e.failures = telemetry.NewFailureLog(slog.New(slog.NewTextHandler(log, nil)))
	})
	if err := n.Able(); err != nil {
		t.Fatal(err)
	}
	taken := make(chan request, 100)
	p.hold("101", func(r request) { taken <- r })
	next := func() request {
		select {
		case r := <-taken:
			return r
		case <-time.After(patience):
			t.Fatal("no command came")
			return request{}
		}
	}

	c := n.session(t)
	n.page(t)
	tells(t, registry, map[string]float64{"sessions{protocol=dianchao.v1}": 1, "sessions{protocol=clicktocopy}": 1, "sessions{protocol=http}": 0, "nats_connected{}": 1})
	response, err := http.Post(n.URL()+"/v1/reads", "", strings.NewReader(`{"concentrator":"101","meter":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	tells(t, registry, map[string]float64{"sessions_refused_total{reason=full}": 1})

	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	first := next()
	tells(t, registry, map[string]float64{"commands_outstanding{}": 1})
	c.send(`{"type":"read","id":"b","concentrator":"101","meter":"101001"}`)
	c.wantFailed("b", meter.CodeTooManyCommands)
	until(t, "it is asked again", func() bool { return told(t, registry)["reasks_total{}"] > 0 })
	first.done("1.50")
	c.wantStage("a", meter.StageDone)
	first.done("1.50")
	tells(t, registry, map[string]float64{
		"commands_total{outcome=done,protocol=dianchao.v1}": 1, "commands_total{outcome=too_many_commands,protocol=dianchao.v1}": 1,
		"command_seconds{result=done}": 1, "command_seconds{result=failed}": 0, "commands_outstanding{}": 0, "late_answers_total{}": 1,
	})

	c.send(`{"type":"read","id":"c","concentrator":"404","meter":"404001"}`)
	c.wantFailed("c", meter.CodeConcentratorOffline)
	tells(t, registry, map[string]float64{
		"commands_total{outcome=concentrator_offline,protocol=dianchao.v1}": 1, "command_seconds{result=failed}": 1,
	})

	drop := func(id string) request {
		for r := next(); ; r = next() {
			if r.ID.String() == id {
				return r
			}
		}
	}
	c.send(`{"type":"read","id":"d","concentrator":"101","meter":"101002"}`)
	drop("d").tell(meter.StageFailed, `"error":{"code":"from_the_future","message":"m","retry":false}`)
	c.wantStageText("d", "from_the_future")
	tells(t, registry, map[string]float64{"commands_total{outcome=unknown,protocol=dianchao.v1}": 1})

	c.send(`{"type":"read","id":"e","concentrator":"101","meter":"101002"}`)
	drop("e")
	c.conn.CloseNow()
	tells(t, registry, map[string]float64{
		"commands_total{outcome=left,protocol=dianchao.v1}": 1, "sessions{protocol=dianchao.v1}": 0, "commands_outstanding{}": 0,
	})
	for _, want := range []string{
		"level=INFO msg=\"a command failed\" id=b concentrator=101 meter=101001 code=too_many_commands",
		"level=INFO msg=\"a command failed\" id=c concentrator=404 meter=404001 code=concentrator_offline",
		"id=d concentrator=101 meter=101002 code=\"error code 0\" gateway=gw-1 message=\"from_the_future: m\"",
	} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%d lines say %s:\n%s", n, want, log)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("%d lines for three failed commands:\n%s", n, log)
	}
}

// wantStageText takes the next message, which is a failed answer with a code that this edge does not know.
func (c client) wantStageText(id, code string) {
	c.t.Helper()
	text, err := c.receive()
	if err != nil || !strings.Contains(text, `"id":"`+id+`"`) || !strings.Contains(text, code) {
		c.t.Fatalf("received %q, %v, want %s of %s", text, err, code, id)
	}
}

func TestMetricsOfAnEdgeThatLeaves(t *testing.T) {
	s := embedNATS(t)
	registry := prometheus.NewRegistry()
	n := startEdge(t, s.URL(), func(c *Config) { c.Metrics = registry })
	c := n.session(t)
	n.leave()
	c.wantClose(closeDrained)
	tells(t, registry, map[string]float64{"draining{}": 1, "sessions_dropped_total{reason=drained}": 1, "sessions_dropped_total{reason=too_slow}": 0})
	if err := n.Able(); err == nil {
		t.Fatal("an edge that leaves is able")
	}
}

func TestTwoEdgesCannotShareARegistry(t *testing.T) {
	registry := prometheus.NewRegistry()
	c, err := Defaults()
	if err != nil {
		t.Fatal(err)
	}
	c.Metrics = registry
	if _, err = New(c); err != nil {
		t.Fatal(err)
	}
	if _, err = New(c); err == nil || !strings.Contains(err.Error(), "duplicate") {
		t.Fatalf("%v", err)
	}
}

func TestACommandCarriesItsSpanOnlyIfSomebodyCollects(t *testing.T) {
	s := embedNATS(t)
	p := connectPeer(t, s.URL())
	headers := make(chan nats.Header, 2)
	p.hold("101", func(r request) { headers <- r.message.Header; r.fail(meter.CodeMeterSilent, "m") })
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	ask := func(n node) nats.Header {
		r, err := http.NewRequest(http.MethodPost, n.URL()+"/v1/reads", strings.NewReader(`{"concentrator":"101","meter":"1"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return <-headers
	}

	if h := ask(startEdge(t, s.URL(), nil)); len(h) != 1 || h.Get(meter.HeaderDeadline) == "" {
		t.Fatalf("without a collector the command carries %v", h)
	}
	n := startEdge(t, s.URL(), func(c *Config) { c.ID, c.Tracer = "edge-2", provider.Tracer("test") })
	h := ask(n)
	all := spans.GetSpans()
	if len(all) != 1 || all[0].Name != "read" || all[0].SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" ||
		all[0].Parent.SpanID().String() != "b7ad6b7169203331" {
		t.Fatalf("%+v", all)
	}
	if want := "-" + all[0].SpanContext.SpanID().String() + "-"; !strings.Contains(h.Get("traceparent"), want) {
		t.Fatalf("the command carries %v, want %s", h, want)
	}
	said := make(map[string]string)
	for _, a := range all[0].Attributes {
		said[string(a.Key)] = a.Value.AsString()
	}
	if said["code"] != "meter_silent" || said["protocol"] != "http" {
		t.Fatalf("%v", said)
	}
}
