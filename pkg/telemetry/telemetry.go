// Package telemetry is how a service is watched: metrics, health and readiness on a port of its own, traces, and the
// log of failed commands. Everything is handed to the services explicitly, so that several can live in one process.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config is what an operator sets.
type Config struct {
	Metrics string `name:"metrics" placeholder:"HOST:PORT" help:"Serve /metrics (Prometheus), /healthz and /readyz here. Default: nowhere."`
	Traces  string `name:"traces" placeholder:"URL" help:"Export traces to this OTLP/HTTP collector, e.g. http://127.0.0.1:4318. Default: the one in OTEL_EXPORTER_OTLP_ENDPOINT, if any."`
}

// Telemetry is what one process tells of itself. Make it with New, close it when the service has ended.
type Telemetry struct {
	// Registry takes the services' metrics; those of the process are in it already.
	Registry *prometheus.Registry
	// Tracer is nil if nobody collects traces.
	Tracer trace.Tracer

	provider *sdktrace.TracerProvider
	listener net.Listener // nil if nobody scrapes
	server   *http.Server
	serving  sync.WaitGroup
}

// New listens, but does not serve yet. It returns an error that names the flag that cannot be used. service is what
// traces call this process, e.g. "edge".
func New(ctx context.Context, c Config, service, version string) (*Telemetry, error) {
	t := &Telemetry{Registry: prometheus.NewRegistry()}
	t.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newBuildInfo(service, version),
	)
	var err error
	if t.provider, err = newTracerProvider(ctx, c.Traces, service, version); err != nil {
		return nil, err
	}
	if t.provider != nil {
		t.Tracer = t.provider.Tracer("github.com/dianchao/dianchao")
	}
	if c.Metrics == "" {
		return t, nil
	}
	if t.listener, err = listen(c.Metrics); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("metrics cannot be served on %s, which is taken by another program: stop it, or choose another address with --metrics", address)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics cannot be served on %s (--metrics): %w", address, err)
	}
	return l, nil
}

func newBuildInfo(service, version string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dianchao_build_info", Help: "Which build runs; always 1.",
		ConstLabels: prometheus.Labels{"service": service, "version": version},
	})
	info.Set(1)
	return info
}

const (
	scrapesAtOnce = 4
	scrapeTimeout = 10 * time.Second
	lastTraces    = 5 * time.Second // for what waits to be exported when the process ends
)

// Serve answers scrapes and health checks until Close. able returns why the service cannot do its work now, nil if it can.
func (t *Telemetry) Serve(able func() error) {
	if t.listener == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.Registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := able(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	t.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * scrapeTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	t.serving.Go(func() {
		if err := t.server.Serve(t.listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("metrics are not served any more", "address", t.listener.Addr(), "err", err)
		}
	})
}

// Address is where metrics are served, HOST:PORT; "" if nowhere.
func (t *Telemetry) Address() string {
	if t.listener == nil {
		return ""
	}
	return t.listener.Addr().String()
}

// Close exports the last traces, and stops serving.
func (t *Telemetry) Close() {
	if t.provider != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastTraces)
		defer cancel()
		if err := t.provider.Shutdown(ctx); err != nil {
			slog.Warn("the last traces could not be exported", "err", err)
		}
	}
	switch {
	case t.server != nil:
		_ = t.server.Close() // what is being scraped at this moment is not worth waiting for
		t.serving.Wait()
	case t.listener != nil:
		_ = t.listener.Close()
	}
}
