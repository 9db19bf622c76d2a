// Command dianchao reads water meters on demand: one binary, one subcommand per service, and standalone, which
// is all of them over an embedded NATS.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/telemetry"
	"github.com/dianchao/dianchao/services/edge"
	"github.com/dianchao/dianchao/services/gateway"
	"github.com/dianchao/dianchao/services/simulator"
)

// version is set by the linker.
var version = "dev"

type commands struct {
	Standalone standaloneCommand `cmd:"" help:"Everything in one process over an embedded NATS, with a simulated town."`
	Edge       edgeCommand       `cmd:"" help:"Serve browsers: console, WebSockets, HTTP."`
	Gateway    gatewayCommand    `cmd:"" help:"Hold the links of concentrators and read meters over them."`
	Simulator  simulatorCommand  `cmd:"" help:"A simulated town of concentrators that dial in to a gateway."`

	Healthcheck healthcheckCommand `cmd:"" help:"Ask a service on this machine whether it is ready, as container health checks do."`

	LogLevel slog.Level       `default:"info" help:"debug, info, warn or error."`
	Version  kong.VersionFlag `help:"Print the version and leave."`
}

// natsClient is where a service that is not standalone finds NATS.
type natsClient struct {
	NATS     string `name:"nats" default:"nats://127.0.0.1:4222" placeholder:"URL,…" help:"The NATS servers."`
	Replicas int    `default:"1" help:"Copies that NATS keeps of streams and buckets; 3 for a cluster of three."`
}

type edgeCommand struct {
	natsClient
	edge.Config `embed:""`
	Telemetry   telemetry.Config `embed:""`
}

func (c edgeCommand) Run(ctx context.Context) error {
	c.Config.NATS, c.Config.Storage.Replicas = c.natsClient.NATS, c.natsClient.Replicas
	t, err := telemetry.New(ctx, c.Telemetry, "edge", version)
	if err != nil {
		return err
	}
	defer t.Close()
	c.Config.Metrics, c.Tracer, c.Config.Version = t.Registry, t.Tracer, version
	e, err := edge.New(c.Config)
	if err != nil {
		return err
	}
	t.Serve(e.Able)
	return runReady(ctx, e, func() { fmt.Printf("edge is ready: %s\n", e.URL()) })
}

type gatewayCommand struct {
	natsClient
	gateway.Config `embed:""`
	Telemetry      telemetry.Config `embed:""`
}

func (c gatewayCommand) Run(ctx context.Context) error {
	c.Config.NATS, c.Config.Storage.Replicas = c.natsClient.NATS, c.natsClient.Replicas
	t, err := telemetry.New(ctx, c.Telemetry, "gateway", version)
	if err != nil {
		return err
	}
	defer t.Close()
	c.Config.Metrics, c.Tracer = t.Registry, t.Tracer
	g, err := gateway.New(c.Config)
	if err != nil {
		return err
	}
	t.Serve(g.Able)
	return runReady(ctx, g, func() { fmt.Printf("gateway is ready: %s\n", addresses(g, c.Listen)) })
}

type simulatorCommand struct {
	Gateway          string `default:"127.0.0.1:7188" placeholder:"HOST:PORT" help:"Where the concentrators dial in: a gateway's cjt188 listener."`
	simulator.Config `embed:""`
	Telemetry        telemetry.Config `embed:""`
}

func (c simulatorCommand) Run(ctx context.Context) error {
	c.Config.Gateway = c.Gateway
	t, err := telemetry.New(ctx, c.Telemetry, "simulator", version)
	if err != nil {
		return err
	}
	defer t.Close()
	c.Config.Metrics = t.Registry
	s, err := simulator.New(c.Config)
	if err != nil {
		return err
	}
	t.Serve(s.Able)
	return runReady(ctx, s, func() { fmt.Println("simulator is ready: every concentrator has logged in") })
}

// service is what every service is to main and to the tests.
type service interface {
	Run(context.Context) error
	Ready() <-chan struct{}
}

// runReady runs s until ctx ends and calls ready once it is.
func runReady(ctx context.Context, s service, ready func()) error {
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
		ready()
		return <-ended
	case err := <-ended:
		return err
	}
}

func options() []kong.Option {
	return []kong.Option{
		kong.Name("dianchao"),
		kong.Description("点抄: read one water meter now. Every flag can also be set in the environment, as DIANCHAO_ and the flag's name."),
		kong.PostBuild(nameEnvironment),
		kong.Vars{"version": version},
		kong.ValueFormatter(func(v *kong.Value) string {
			help := kong.DefaultHelpValueFormatter(v)
			if v.HasDefault && v.Default != "" && v.Flag.PlaceHolder != "" {
				help += " (default " + v.Default + ")"
			}
			return help
		}),
	}
}

// nameEnvironment gives every flag the environment variable DIANCHAO_ and its name. (kong's own DefaultEnvars would make
// CJT_188 of cjt188.)
func nameEnvironment(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && f.Name != "help" && f.Name != "version" {
			f.Envs = []string{"DIANCHAO_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}
			f.Tag.Envs = f.Envs
		}
		return next(nil)
	})
}

func main() {
	var c commands
	parsed := kong.Parse(&c, options()...)
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "dianchao:", err)
		os.Exit(1)
	}
}
