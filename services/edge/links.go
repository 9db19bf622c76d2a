package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// provisionPatience is how long a NATS cluster that just started may take to elect who answers for JetStream.
const provisionPatience = 10 * time.Second

var errNATSWasAway = errors.New("NATS was away")

// provision creates the bucket of links if it is missing.
func (e *Edge) provision(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, provisionPatience)
	defer cancel()
	for {
		err := bus.Provision(patience, e.js, max(1, e.config.Replicas))
		if err == nil || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			return err
		}
		select {
		case <-patience.Done():
			return err
		case <-time.After(e.pace.reprovision):
		}
	}
}

// keepLinks keeps the board true until ctx ends: it follows the bucket of links, and starts over when that broke or
// NATS was away, since what changed meanwhile was not told.
func (e *Edge) keepLinks(ctx context.Context) {
	for ctx.Err() == nil {
		err := e.followLinks(ctx)
		if errors.Is(err, errNATSWasAway) {
			e.askAgain()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("the bucket of links cannot be followed, trying again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(e.pace.reprovision):
		}
		// A NATS server that came back without its files has no bucket any more.
		if err := e.provision(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("the bucket of links cannot be created", "err", err)
		}
	}
}

// followLinks copies the bucket onto the board, then every change, until ctx ends or the bucket is out of sight.
func (e *Edge) followLinks(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kv, err := e.js.KeyValue(ctx, meter.BucketLinks)
	if err != nil {
		return fmt.Errorf("open the bucket %s: %w", meter.BucketLinks, err)
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch the bucket %s: %w", meter.BucketLinks, err)
	}
	defer func() {
		if err := watcher.Stop(); err != nil {
			e.log.Debug("stop watching links", "err", err)
		}
		// The watcher's callback blocks while nobody reads; its channel is closed once it has ended.
		for range watcher.Updates() {
		}
	}()

	first := map[meter.ConcentratorID]meter.Link{} // nil once the board has it
	announce := time.NewTimer(0)
	<-announce.C
	defer announce.Stop()
	pending := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.reconnected:
			return errNATSWasAway
		case <-announce.C:
			pending = false
			e.board.announce()
		case entry, open := <-watcher.Updates():
			if !open {
				return errors.New("the watcher ended")
			}
			if entry == nil {
				e.board.replace(first)
				first = nil
				continue
			}
			if first != nil {
				if l, ok := e.linkOf(entry); ok {
					first[l.Concentrator] = l
				}
				continue
			}
			e.post(entry)
			if !pending {
				pending = true
				announce.Reset(e.pace.presence)
			}
		}
	}
}

// post puts one change of the bucket on the board.
func (e *Edge) post(entry jetstream.KeyValueEntry) {
	if l, ok := e.linkOf(entry); ok {
		e.board.put(l)
		return
	}
	if c, err := meter.ParseConcentratorID(entry.Key()); err == nil {
		e.board.remove(c)
	}
}

// linkOf returns false for an entry that holds no link: it was deleted, or is none of ours.
func (e *Edge) linkOf(entry jetstream.KeyValueEntry) (meter.Link, bool) {
	if entry.Operation() != jetstream.KeyValuePut {
		return meter.Link{}, false
	}
	var l meter.Link
	if err := json.Unmarshal(entry.Value(), &l); err != nil || l.Concentrator.String() != entry.Key() || l.State == 0 {
		e.log.Warn("an entry of the bucket of links is none", "key", entry.Key(), "err", err)
		return meter.Link{}, false
	}
	return l, true
}
