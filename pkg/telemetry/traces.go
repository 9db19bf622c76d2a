package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// newTracerProvider returns nil if neither endpoint nor the environment names a collector.
func newTracerProvider(ctx context.Context, endpoint, service, version string) (*sdktrace.TracerProvider, error) {
	var options []otlptracehttp.Option
	switch {
	case endpoint != "":
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--traces: %q is no URL of an OTLP/HTTP collector such as http://127.0.0.1:4318", endpoint)
		}
		if !strings.HasSuffix(u.Path, tracesPath) {
			u = u.JoinPath(tracesPath)
		}
		options = append(options, otlptracehttp.WithEndpointURL(u.String()))
	case os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "dianchao-"+service), attribute.String("service.version", version)),
		resource.WithFromEnv(), // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	)
	if err != nil {
		return nil, fmt.Errorf("describe this process to the traces' collector: %w", err)
	}
	logExportErrors()
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described)), nil
}

// tracesPath is where the OTLP specification has collectors take traces.
const tracesPath = "/v1/traces"

// logExportErrors has the library, which knows one place for it in a process, tell its errors to our log: now and then,
// because a collector that is down fails every batch.
var logExportErrors = sync.OnceFunc(func() {
	now := rate.Sometimes{First: 1, Interval: time.Minute}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		now.Do(func() { slog.Warn("traces could not be exported; the service goes on without", "err", err) })
	}))
})

// headers carries a trace's context in a message's headers, under the names of the W3C recommendation as they are: NATS
// knows no canonical spelling.
type headers map[string][]string

func (h headers) Get(key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (h headers) Set(key, value string) { h[key] = []string{value} }

func (h headers) Keys() []string {
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	return keys
}

// Inject writes which span a message belongs to into its headers.
func Inject(span trace.Span, h map[string][]string) {
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), span), headers(h))
}

// Extract returns a context with the span that a message belongs to, if its headers name one.
func Extract(h map[string][]string) context.Context {
	return propagation.TraceContext{}.Extract(context.Background(), headers(h))
}

var _ propagation.TextMapCarrier = headers(nil)

// ExtractHTTP is Extract for the headers of an HTTP request.
func ExtractHTTP(h http.Header) context.Context {
	return propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(h))
}
