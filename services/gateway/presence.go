package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
)

// presence writes who holds which link to the bucket and tells everybody. A concentrator's writes follow each
// other; of several that wait only the latest is made, so what waits is bounded by the number of concentrators.
type presence struct {
	nc     *nats.Conn
	kv     jetstream.KeyValue
	seed   maphash.Seed
	shards [presenceWriters]shard
}

type shard struct {
	mu      sync.Mutex
	waiting map[meter.ConcentratorID]meter.Link
	wake    chan struct{}
	// revisions are those of our own last writes, so that we only ever take back what we wrote ourselves.
	revisions map[meter.ConcentratorID]uint64
}

const (
	presenceWriters = 8
	presenceTimeout = 5 * time.Second
	presencePause   = time.Second
	presenceLast    = time.Second // for what waits when the gateway stops
)

func newPresence(nc *nats.Conn, kv jetstream.KeyValue) *presence {
	p := &presence{nc: nc, kv: kv, seed: maphash.MakeSeed()}
	for i := range p.shards {
		p.shards[i] = shard{
			waiting:   make(map[meter.ConcentratorID]meter.Link),
			wake:      make(chan struct{}, 1),
			revisions: make(map[meter.ConcentratorID]uint64),
		}
	}
	return p
}

// set takes the newest state of a link. It does not block.
func (p *presence) set(l meter.Link) {
	s := &p.shards[maphash.String(p.seed, l.Concentrator.String())%presenceWriters]
	s.mu.Lock()
	s.waiting[l.Concentrator] = l
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends and nothing waits any more.
func (p *presence) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range p.shards {
		all.Go(func() { p.write(ctx, &p.shards[i]) })
	}
	all.Wait()
}

func (p *presence) write(ctx context.Context, s *shard) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), presenceLast)
			p.drain(last, s)
			cancel()
			return
		}
		for !p.drain(context.WithoutCancel(ctx), s) {
			if !pause(ctx, presencePause) {
				break
			}
		}
	}
}

// drain writes all that waits; false if NATS would not take it, which then waits on.
func (p *presence) drain(ctx context.Context, s *shard) bool {
	for {
		l, ok := s.next()
		if !ok {
			return true
		}
		if err := p.put(ctx, s, l); err != nil {
			slog.Warn("a link's state could not be written to NATS", "concentrator", l.Concentrator, "state", l.State, "err", err)
			s.restore(l)
			return false
		}
	}
}

func (s *shard) next() (meter.Link, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, l := range s.waiting {
		delete(s.waiting, c)
		return l, true
	}
	return meter.Link{}, false
}

func (s *shard) restore(l meter.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, newer := s.waiting[l.Concentrator]; !newer {
		s.waiting[l.Concentrator] = l
	}
}

func (p *presence) put(ctx context.Context, s *shard, l meter.Link) error {
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	var revision uint64
	if l.State == meter.LinkUp {
		revision, err = p.kv.Put(ctx, l.Concentrator.String(), b)
	} else {
		revision, err = p.kv.Update(ctx, l.Concentrator.String(), b, s.revisions[l.Concentrator])
		if errors.Is(err, jetstream.ErrKeyExists) {
			return nil // another gateway has written since: it holds the link now
		}
	}
	if err != nil {
		return err
	}
	s.revisions[l.Concentrator] = revision
	return p.nc.Publish(meter.SubjectLink(l.Concentrator), b)
}
