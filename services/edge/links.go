package edge

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/bus"
	"github.com/dianchao/dianchao/pkg/meter"
)

// provisionPatience is how long a NATS cluster that just started may take to elect who answers for JetStream.
const provisionPatience = 30 * time.Second

// provision creates the bucket of links if it is missing.
func (e *Edge) provision(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, provisionPatience)
	defer cancel()
	return bus.ProvisionWait(patience, e.js, e.config.Storage)
}

// keepLinks keeps the board true until ctx ends.
func (e *Edge) keepLinks(ctx context.Context) {
	f := &boardKeeper{edge: e}
	defer f.stop()
	bus.Follow(ctx, e.js, meter.BucketLinks, e.config.Storage, e.reconnected, f)
}

// boardKeeper copies the bucket of links onto the board, then every change.
type boardKeeper struct {
	edge  *Edge
	first map[meter.ConcentratorID]meter.Link // nil once the board has it

	mu       sync.Mutex
	announce *time.Timer // runs while changes wait to be announced
}

func (k *boardKeeper) Begin() { k.first = map[meter.ConcentratorID]meter.Link{} }

func (k *boardKeeper) Complete() {
	k.edge.board.replace(k.first)
	k.first = nil
}

func (k *boardKeeper) Change(entry jetstream.KeyValueEntry) {
	if k.first != nil {
		if l, ok := k.edge.linkOf(entry); ok {
			k.first[l.Concentrator] = l
		}
		return
	}
	k.edge.post(entry)
	k.announceSoon()
}

// announceSoon collects the changes of a moment, so that a thousand logins are not a thousand messages a session.
func (k *boardKeeper) announceSoon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.announce != nil {
		return
	}
	k.announce = time.AfterFunc(k.edge.pace.presence, func() {
		k.mu.Lock()
		k.announce = nil
		k.mu.Unlock()
		k.edge.board.announce()
	})
}

func (k *boardKeeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.announce != nil {
		k.announce.Stop()
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
