package edge

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Config is what an edge node can be told. Its tags are the declaration that flags, environment and --help come from.
type Config struct {
	HTTP            string        `name:"http" placeholder:"HOST:PORT" default:"127.0.0.1:7759" env:"DIANCHAO_HTTP" help:"Where the console, the HTTP API and WebSockets are served. Port 0 picks a free one."`
	ID              string        `name:"edge-id" placeholder:"ID" env:"DIANCHAO_EDGE_ID" help:"This node's name on NATS, unique among edges. Default: edge-<8 random hex digits>."`
	SessionCommands int           `name:"session-commands" default:"64" env:"DIANCHAO_SESSION_COMMANDS" help:"How many reads a session may have outstanding."`
	SessionRate     float64       `name:"session-rate" default:"0" env:"DIANCHAO_SESSION_RATE" help:"How many reads a second a session may ask for, with bursts of twice as many. 0 is no limit."`
	MaxSessions     int           `name:"max-sessions" default:"20000" env:"DIANCHAO_MAX_SESSIONS" help:"How many sessions (WebSockets and HTTP reads that wait) this node takes before it answers 503."`
	Origins         []string      `name:"origins" placeholder:"HOST" default:"*" env:"DIANCHAO_ORIGINS" help:"Hosts whose pages may open WebSockets here, beside this node's own; * is any, patterns such as *.example.com work."`
	Meters          string        `name:"meters" placeholder:"FILE" env:"DIANCHAO_METERS" help:"CSV of concentrator,meter,name: the meters that the console lists. UTF-8 or GB18030."`
	Drain           time.Duration `name:"drain" default:"5s" env:"DIANCHAO_DRAIN" help:"How long outstanding reads may take to end when this node is told to leave."`

	NATS      string        `kong:"-"` // one or more nats:// URLs, separated by commas
	Storage   bus.Storage   `kong:"-"` // of the buckets and the stream that are created if they are missing
	Directory []ListedMeter `kong:"-"` // meters to list beside those in Meters
	Version   string        `kong:"-"` // of this build, for hello

	Metrics prometheus.Registerer `kong:"-"` // takes this node's metrics; may be nil
	Tracer  trace.Tracer          `kong:"-"` // nil if nobody collects traces
}

// Defaults returns a Config as it is with no flag given, the environment applied.
func Defaults() (Config, error) {
	var c Config
	if err := kong.ApplyDefaults(&c); err != nil {
		return Config{}, fmt.Errorf("the edge's options: %w", err)
	}
	return c, nil
}

// validate returns an error that names the flag whose value cannot be used.
func (c Config) validate() error {
	switch {
	case c.SessionCommands < 1:
		return fmt.Errorf("--session-commands is %d, it must be at least 1", c.SessionCommands)
	case c.SessionRate < 0:
		return fmt.Errorf("--session-rate is %g, it cannot be negative", c.SessionRate)
	case c.MaxSessions < 1:
		return fmt.Errorf("--max-sessions is %d, it must be at least 1", c.MaxSessions)
	case c.Drain < 0:
		return fmt.Errorf("--drain is %s, it cannot be negative", c.Drain)
	}
	return nil
}

func (c Config) anyOrigin() bool { return slices.Contains(c.Origins, "*") }

func parseOrMakeID(s string) (meter.EdgeID, error) {
	if s == "" {
		var b [4]byte
		rand.Read(b[:]) // never fails, see its documentation
		s = "edge-" + hex.EncodeToString(b[:])
	}
	return meter.ParseEdgeID(s)
}

// pace is every period that is not the operator's to set.
type pace struct {
	ping      time.Duration   // between two WebSocket pings
	silence   time.Duration   // a session from which nothing came for this long is closed
	write     time.Duration   // one write to a client may take this long
	handshake time.Duration   // how long a client has to answer our close frame
	reask     time.Duration   // without an answer, the command is published again; then every twice that
	backstop  time.Duration   // after a command's deadline, before the edge answers itself
	cancelled time.Duration   // after a cancel, before the edge answers itself
	unheld    []time.Duration // before each new try of a command for which no gateway was there
	moving    time.Duration   // how long a concentrator may take to be back at another gateway
	away      time.Duration   // how long NATS may be away before reads are refused for it
	settle    time.Duration   // after NATS came back, how long gateways may take to be back too
	presence  time.Duration   // changes of links are collected this long before clients are told

	framesWatch time.Duration // a gateway is asked to tell new frames for this long
	framesRenew time.Duration // and after this long to go on
	framesReply time.Duration // how long its answer may take; after an error, the first wait before it is asked again
	framesAnew  time.Duration // between frames that were missed and asking for all of them
}

var usualPace = pace{
	ping:      30 * time.Second,
	silence:   90 * time.Second,
	write:     10 * time.Second,
	handshake: 500 * time.Millisecond,
	reask:     time.Second,
	backstop:  500 * time.Millisecond,
	cancelled: time.Second,
	// Subject interest spreads asynchronously between NATS servers.
	unheld:   []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond},
	moving:   meter.MovingPatience,
	away:     2 * time.Second,
	settle:   2 * time.Second,
	presence: 25 * time.Millisecond,

	framesWatch: 30 * time.Second,
	framesRenew: 20 * time.Second,
	framesReply: 2 * time.Second,
	framesAnew:  250 * time.Millisecond,
}
