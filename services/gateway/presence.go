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
	nc      *nats.Conn
	kv      jetstream.KeyValue
	claimed func(meter.Link, uint64) // is told the revision of what was written
	seed    maphash.Seed
	shards  [presenceWriters]shard
}

type shard struct {
	mu      sync.Mutex
	waiting map[meter.ConcentratorID]pending
	wake    chan struct{}
	// revisions are those of our own last writes, so that we only ever take back what we wrote ourselves.
	revisions map[meter.ConcentratorID]uint64
}

// pending is a state that waits to be written.
type pending struct {
	meter.Link
	late bool // a first attempt failed, so others may have written since
}

const (
	presenceWriters = 8
	presenceTimeout = 5 * time.Second
	presencePause   = time.Second
	presenceLast    = time.Second // for what waits when the gateway stops
)

func newPresence(nc *nats.Conn, kv jetstream.KeyValue, claimed func(meter.Link, uint64)) *presence {
	p := &presence{nc: nc, kv: kv, claimed: claimed, seed: maphash.MakeSeed()}
	for i := range p.shards {
		p.shards[i] = shard{
			waiting:   make(map[meter.ConcentratorID]pending),
			wake:      make(chan struct{}, 1),
			revisions: make(map[meter.ConcentratorID]uint64),
		}
	}
	return p
}

// set takes the newest state of a link. It does not block.
func (p *presence) set(l meter.Link) {
	s := p.shard(l.Concentrator)
	s.mu.Lock()
	s.waiting[l.Concentrator] = pending{Link: l}
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

func (s *shard) next() (pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, l := range s.waiting {
		delete(s.waiting, c)
		return l, true
	}
	s.waiting = make(map[meter.ConcentratorID]pending) // a map that was large once stays so
	return pending{}, false
}

func (s *shard) restore(l pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, newer := s.waiting[l.Concentrator]; !newer {
		l.late = true
		s.waiting[l.Concentrator] = l
	}
}

func (p *presence) put(ctx context.Context, s *shard, l pending) error {
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	b, err := json.Marshal(l.Link)
	if err != nil {
		return err
	}
	if l.State == meter.LinkUp {
		// The bucket is written over another connection than that on which its commands are subscribed to. Who is said to
		// be up must be reached.
		if err := p.nc.FlushWithContext(ctx); err != nil {
			return err
		}
	}
	key := l.Concentrator.String()
	var revision uint64
	switch {
	case l.State == meter.LinkDown:
		revision, err = p.kv.Update(ctx, key, b, s.revisions[l.Concentrator])
	case l.late:
		revision, err = p.putUnlessNewer(ctx, l, b)
	default:
		revision, err = p.kv.Put(ctx, key, b)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil // another gateway has written since: it holds the link now, and who follows the bucket learns it
	}
	if err != nil {
		return err
	}
	if l.State == meter.LinkUp {
		s.revisions[l.Concentrator] = revision
	} else {
		delete(s.revisions, l.Concentrator)
	}
	p.claimed(l.Link, revision)
	return p.nc.Publish(meter.SubjectLink(l.Concentrator), b)
}

// putUnlessNewer writes a login that could not be written when it happened, if no other has happened since.
func (p *presence) putUnlessNewer(ctx context.Context, l pending, b []byte) (uint64, error) {
	e, err := p.kv.Get(ctx, l.Concentrator.String())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return p.kv.Create(ctx, l.Concentrator.String(), b)
	}
	if err != nil {
		return 0, err
	}
	var there meter.Link
	if json.Unmarshal(e.Value(), &there) == nil && there.Since.After(l.Since) && there.Gateway != l.Gateway {
		p.claimed(l.Link, e.Revision()-1) // older than what is there
		return 0, jetstream.ErrKeyExists
	}
	return p.kv.Update(ctx, l.Concentrator.String(), b, e.Revision())
}

// bury writes that a link is down which its own gateway cannot write, unless somebody has written since.
func (p *presence) bury(l claim, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), presenceTimeout)
	defer cancel()
	// The concentrator is not to blame, and will dial in again.
	l.State, l.Reason, l.Since, l.Moving = meter.LinkDown, reason, time.Now().UTC().Truncate(time.Millisecond), true
	b, err := json.Marshal(l.Link)
	if err == nil {
		_, err = p.kv.Update(ctx, l.Concentrator.String(), b, l.revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return
	}
	if err == nil {
		err = p.nc.Publish(meter.SubjectLink(l.Concentrator), b)
	}
	if err != nil {
		slog.Warn("a dead gateway's link could not be taken down, trying again", "concentrator", l.Concentrator, "err", err)
	}
}

func (p *presence) shard(c meter.ConcentratorID) *shard {
	return &p.shards[maphash.String(p.seed, c.String())%presenceWriters]
}
