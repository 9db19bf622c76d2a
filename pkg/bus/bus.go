// Package bus connects the services to NATS, embeds a NATS server, and provisions what JetStream holds for them.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Options say how a service connects to NATS.
type Options struct {
	URL  string // one or more nats:// URLs, separated by commas
	Name string // shown by nats-server, e.g. "edge edge-1"
	// Buffer keeps what is published while the connection is away and sends it later. Answers want that; commands
	// do not: a command sent late is worse than one that fails at once.
	Buffer      bool
	Lost        func() // is called after the connection was lost. May be nil
	Reconnected func() // is called after it came back. May be nil
}

const (
	connectTimeout  = 5 * time.Second
	reconnectWait   = 250 * time.Millisecond
	reconnectJitter = 250 * time.Millisecond
	reconnectBuffer = 16 << 20
	// A server that a network has cut off without a word is given up after this many pings without an answer.
	pingInterval = 2 * time.Second
	maxPings     = 2
)

// Connect returns a connection that reconnects for ever. It waits until the first connection stands, or returns
// an error that names the URL once ctx ends.
func Connect(ctx context.Context, o Options) (*nats.Conn, error) {
	buffer := -1
	if o.Buffer {
		buffer = reconnectBuffer
	}
	log := slog.With("nats", o.Name)
	connected := make(chan struct{}, 1)
	nc, err := nats.Connect(o.URL,
		nats.Name(o.Name),
		nats.Timeout(connectTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPings),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(buffer),
		nats.ConnectHandler(func(*nats.Conn) { connected <- struct{}{} }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("NATS connection lost, reconnecting", "err", err)
			}
			if o.Lost != nil {
				o.Lost()
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connection is back", "url", nc.ConnectedUrlRedacted())
			if o.Reconnected != nil {
				o.Reconnected()
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Error("NATS error", "subject", sub.Subject, "err", err)
				return
			}
			log.Error("NATS error", "err", err)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", o.URL, err)
	}
	select {
	case <-connected:
		return nc, nil
	case <-ctx.Done():
		cause := nc.LastError()
		nc.Close()
		if cause == nil {
			cause = ctx.Err()
		}
		return nil, fmt.Errorf("no NATS server answers at %s (is it running?): %w", o.URL, cause)
	}
}

// LeaseTTL is how long after its last sign a gateway counts as alive.
const LeaseTTL = 10 * time.Second

const (
	provisionPause = 250 * time.Millisecond
	// provisionTry bounds one attempt: of several services that create the same stream at the same moment in a cluster
	// that has just started, some get no answer at all.
	provisionTry = 3 * time.Second
)

const (
	readingsMaxAge   = 7 * 24 * time.Hour
	readingsMaxBytes = 1 << 30
	// readingsMaxMemory is the bound where they are kept in memory.
	readingsMaxMemory = 64 << 20
)

// Storage is how JetStream keeps the buckets and the stream. All services of a system must agree on it. The zero value
// is one copy on disk.
type Storage struct {
	Replicas int  // copies; 0 is 1
	InMemory bool // nothing survives the NATS server
}

func (s Storage) replicas() int { return max(1, s.Replicas) }

func (s Storage) storage() jetstream.StorageType {
	if s.InMemory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

func (s Storage) maxBytes() int64 {
	if s.InMemory {
		return readingsMaxMemory
	}
	return readingsMaxBytes
}

// ProvisionWait is Provision that tries again for as long as JetStream has no leader yet, as in a cluster that has just
// started, or until ctx ends.
func ProvisionWait(ctx context.Context, js jetstream.JetStream, s Storage) error {
	for {
		try, cancel := context.WithTimeout(ctx, provisionTry)
		err := Provision(try, js, s)
		cancel()
		if err == nil || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			return err
		}
		select {
		case <-time.After(provisionPause):
		case <-ctx.Done():
			return err
		}
	}
}

// Provision creates the buckets and the stream of the contract, or brings them up to date.
// It is safe to call from every service at every start.
func Provision(ctx context.Context, js jetstream.JetStream, s Storage) error {
	if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:      meter.BucketLinks,
		Description: "who holds which concentrator's link, and since when",
		Storage:     s.storage(),
		Replicas:    s.replicas(),
	}); err != nil {
		return fmt.Errorf("create the bucket %s: %w", meter.BucketLinks, explain(err))
	}
	if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:      meter.BucketGateways,
		Description: "which gateways are alive",
		TTL:         LeaseTTL,
		Storage:     jetstream.MemoryStorage,
		Replicas:    s.replicas(),
	}); err != nil {
		return fmt.Errorf("create the bucket %s: %w", meter.BucketGateways, explain(err))
	}
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        meter.StreamReadings,
		Description: "every reading that came off a wire",
		Subjects:    []string{meter.SubjectReadings},
		MaxAge:      readingsMaxAge,
		MaxBytes:    s.maxBytes(),
		Storage:     s.storage(),
		Replicas:    s.replicas(),
	}); err != nil {
		return fmt.Errorf("create the stream %s: %w", meter.StreamReadings, explain(err))
	}
	return nil
}

func explain(err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		return fmt.Errorf("JetStream is not enabled on this NATS server, start it with -js: %w", err)
	}
	return err
}
