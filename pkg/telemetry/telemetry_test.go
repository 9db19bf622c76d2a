package telemetry

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestMetricsPort(t *testing.T) {
	tel, err := New(t.Context(), Config{Metrics: "127.0.0.1:0"}, "edge", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	able := make(chan error, 1)
	tel.Serve(func() error { return <-able })
	url := "http://" + tel.Address()
	for _, row := range []struct {
		name, path string
		able       error
		status     int
		says       string
	}{
		{"metrics of the process", "/metrics", nil, 200, "\ngo_goroutines "},
		{"which build", "/metrics", nil, 200, `dianchao_build_info{service="edge",version="1.2.3"} 1`},
		{"alive", "/healthz", errors.New("no"), 200, "alive"},
		{"able", "/readyz", nil, 200, "ready"},
		{"not able", "/readyz", errors.New("cut off from NATS"), 503, "cut off from NATS"},
		{"nothing else", "/", nil, 404, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			able <- row.able
			status, says := get(t, url+row.path)
			if status != row.status || !strings.Contains(says, row.says) {
				t.Fatalf("%d %s", status, says)
			}
			if row.path != "/readyz" {
				<-able
			}
		})
	}
}

func TestWhatCannotBeUsedIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, row := range []struct {
		name   string
		config Config
		says   []string
	}{
		{"port is taken", Config{Metrics: taken.Addr().String()}, []string{taken.Addr().String(), "taken", "--metrics"}},
		{"no address", Config{Metrics: "9759"}, []string{"--metrics", "9759"}},
		{"no URL", Config{Traces: "collector:4318"}, []string{"--traces", "collector:4318"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(t.Context(), row.config, "edge", "dev")
			for _, s := range row.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("%v does not say %q", err, s)
				}
			}
		})
	}
}

func TestNobodyWatches(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	tel, err := New(t.Context(), Config{}, "edge", "dev")
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	tel.Serve(nil)
	if tel.Tracer != nil || tel.Address() != "" {
		t.Fatalf("%v %q", tel.Tracer, tel.Address())
	}
}

func TestTheEnvironmentNamesACollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tel, err := New(t.Context(), Config{}, "edge", "dev")
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	if tel.Tracer == nil {
		t.Fatal("no traces")
	}
}

func TestASpanTravelsInHeaders(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	_, span := provider.Tracer("test").Start(t.Context(), "read")
	defer span.End()
	h := nats.Header{meter.HeaderDeadline: {"1"}}
	Inject(span, h)
	if h.Get("traceparent") == "" || h.Get(meter.HeaderDeadline) != "1" {
		t.Fatalf("%v", h)
	}
	got := trace.SpanContextFromContext(Extract(h))
	if got.TraceID() != span.SpanContext().TraceID() || got.SpanID() != span.SpanContext().SpanID() || !got.IsRemote() {
		t.Fatalf("%+v", got)
	}
	for _, none := range []nats.Header{nil, {}, {"traceparent": {"00-zz"}}, {"traceparent": nil}} {
		if trace.SpanContextFromContext(Extract(none)).IsValid() {
			t.Errorf("%v has a span", none)
		}
	}
}

func failure(code meter.Code) Failure {
	id, _ := meter.ParseCommandID("x")
	c, _ := meter.ParseConcentratorID("101")
	m, _ := meter.ParseAddress("101001")
	return Failure{ID: id, Concentrator: c, Meter: m, Code: code, Message: "why", Gateway: "gw-1"}
}

func TestAFailedCommandHasALine(t *testing.T) {
	var out bytes.Buffer
	log := NewFailureLog(slog.New(slog.NewTextHandler(&out, nil)).With("edge", "edge-1"))
	for code, level := range map[meter.Code]string{
		meter.CodeMeterSilent: "INFO", meter.CodeConcentratorOffline: "INFO", meter.CodeExpired: "INFO", meter.CodeCancelled: "INFO",
		meter.CodeInternal: "WARN", meter.CodeLinkLost: "WARN", meter.CodeBusy: "WARN",
	} {
		out.Reset()
		log.Add(failure(code))
		for _, want := range []string{"level=" + level, "edge=edge-1", "id=x", "concentrator=101", "meter=101001", "code=" + code.String(), "gateway=gw-1", "message=why"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %s does not say %s", code, &out, want)
			}
		}
	}
}

func TestAStormOfFailuresIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := NewFailureLog(slog.New(slog.NewTextHandler(&out, nil)))
		storm := func(n int) int {
			out.Reset()
			for range n {
				log.Add(failure(meter.CodeConcentratorOffline))
			}
			return strings.Count(out.String(), "\n")
		}
		if n := storm(10_000); n != failureBurst {
			t.Fatalf("%d lines", n)
		}
		if n := log.Unlogged(); n != 10_000-failureBurst {
			t.Fatalf("%d without a line", n)
		}
		out.Reset()
		log.Add(failure(meter.CodeInternal))
		if !strings.Contains(out.String(), "level=WARN") {
			t.Fatal("a storm in the field hides a fault of ours")
		}
		time.Sleep(time.Second) // fake time
		if n := storm(1000); n != failureRate {
			t.Fatalf("%d lines a second later", n)
		}
		if !strings.Contains(out.String(), "unlogged_before=9900") {
			t.Fatalf("%s", &out)
		}
	})
}

func TestLinesBelowTheLevelAreNotCounted(t *testing.T) {
	log := NewFailureLog(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})))
	for range 2 * failureBurst {
		log.Add(failure(meter.CodeInternal))
	}
	if n := log.Unlogged(); n != 0 {
		t.Fatalf("%d", n)
	}
}
