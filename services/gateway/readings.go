package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/dianchao/dianchao/pkg/meter"
)

// readings publishes every reading that came off a wire to the stream, and again until the stream has it.
type readings struct {
	js     jetstream.JetStream
	queue  chan *meter.Answer
	warned time.Time // when it was last said that the stream does not take readings; belongs to settle

	pending atomic.Int64 // readings that the stream does not have yet
	lost    atomic.Int64 // readings that it will not get
}

type pendingReading struct {
	id      string // so that the stream drops what it has already
	subject string
	body    []byte
	ack     jetstream.PubAckFuture // nil until published
}

const (
	readingsQueue  = 65536
	readingsFlight = 1024 // published, not yet acknowledged
	readingsPause  = time.Second
	readingsWarn   = 10 * time.Second
	// readingsGather collects readings, so that under load many go out in one write and come back in one read: nobody
	// waits for them.
	readingsGather = 10 * time.Millisecond
	readingsAck    = 5 * time.Second
	readingsLast   = 2 * time.Second // for what waits when the gateway stops
)

func newReadings(js jetstream.JetStream) *readings {
	return &readings{js: js, queue: make(chan *meter.Answer, readingsQueue)}
}

// add takes a reading. It does not block: with the queue full, the reading is logged whole instead.
func (r *readings) add(a *meter.Answer) {
	r.pending.Add(1)
	select {
	case r.queue <- a:
	default:
		r.pending.Add(-1)
		r.lost.Add(1)
		slog.Error("the stream has been away for too long: this reading is only in the log",
			"concentrator", a.Concentrator, "meter", a.Meter, "at", a.At, "received", a.Frames.Received)
	}
}

// run publishes until ctx ends, then gives what waits a last chance.
func (r *readings) run(ctx context.Context) {
	last, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(readingsLast, giveUp) })
	defer stop()
	flight := make(chan pendingReading, readingsFlight)
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		for p := range flight {
			r.settle(last, p)
		}
	}()
	defer func() { close(flight); <-settled }()
	for ctx.Err() == nil {
		select {
		case a := <-r.queue:
			r.send(flight, a)
			pause(ctx, readingsGather)
		case <-ctx.Done():
		}
		r.sendWaiting(flight)
	}
}

func (r *readings) sendWaiting(flight chan<- pendingReading) {
	for {
		select {
		case a := <-r.queue:
			r.send(flight, a)
		default:
			return
		}
	}
}

// send publishes a reading for the first time; settle, behind flight, sees to it that it arrives.
func (r *readings) send(flight chan<- pendingReading, a *meter.Answer) {
	b, err := json.Marshal(a)
	if err != nil {
		r.pending.Add(-1)
		r.lost.Add(1)
		slog.Error("a reading cannot be encoded", "concentrator", a.Concentrator, "meter", a.Meter, "err", err)
		return
	}
	flight <- r.publish(pendingReading{id: nuid.Next(), subject: meter.SubjectReading(a.Concentrator), body: b})
}

func (r *readings) publish(p pendingReading) pendingReading {
	ack, err := r.js.PublishAsync(p.subject, p.body, jetstream.WithMsgID(p.id))
	if err != nil {
		slog.Debug("a reading could not be published, trying again", "err", err)
	}
	p.ack = ack
	return p
}

// settle waits until the stream has p, publishing it again as often as it takes, or until last ends. What waits behind it
// was published already, so that after an outage each takes one round trip.
func (r *readings) settle(last context.Context, p pendingReading) {
	defer r.pending.Add(-1)
	for {
		if p.ack == nil {
			pause(last, readingsPause)
		} else {
			select {
			case <-p.ack.Ok():
				return
			case err := <-p.ack.Err():
				if time.Since(r.warned) > readingsWarn {
					r.warned = time.Now()
					slog.Warn("the stream does not take readings, trying again until it does", "subject", p.subject, "err", err)
				}
			case <-last.Done():
			}
		}
		if last.Err() != nil {
			r.lost.Add(1)
			slog.Error("stopped before the stream had this reading", "reading", string(p.body))
			return
		}
		p = r.publish(p)
	}
}
