package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Follower is told what a bucket holds. Its methods are called from one goroutine.
type Follower interface {
	// Begin says that what follows is all there is; what was known before is void.
	Begin()
	// Change is a key's value, or that it was deleted.
	Change(jetstream.KeyValueEntry)
	// Complete says that all that was there at Begin has been told; changes come from now on.
	Complete()
}

const followPause = time.Second

// Follow tells f the content of a bucket and every change until ctx ends. It starts over when the bucket was out
// of sight, and whenever anew can be received from: after NATS was away, since what changed meanwhile is not told.
// A bucket that is gone (a NATS server that came back without its files) is provisioned again.
func Follow(ctx context.Context, js jetstream.JetStream, bucket string, storage Storage, anew <-chan struct{}, f Follower) {
	for ctx.Err() == nil {
		err := follow(ctx, js, bucket, anew, f)
		if err == nil || ctx.Err() != nil {
			continue
		}
		slog.Warn("a bucket cannot be followed, trying again", "bucket", bucket, "err", err)
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return
		}
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			if err := Provision(ctx, js, storage); err != nil && ctx.Err() == nil {
				slog.Warn("it cannot be provisioned either", "bucket", bucket, "err", err)
			}
		}
	}
}

// follow returns nil if it is to start over at once.
func follow(ctx context.Context, js jetstream.JetStream, bucket string, anew <-chan struct{}, f Follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch it: %w", err)
	}
	defer func() {
		_ = watcher.Stop() // fails only if it has stopped already
		for range watcher.Updates() {
			// Its callback blocks while nobody reads; the channel is closed once it has ended.
		}
	}()
	f.Begin()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-anew:
			return nil
		case entry, open := <-watcher.Updates():
			switch {
			case !open:
				return errors.New("the watcher ended")
			case entry == nil:
				f.Complete()
			default:
				f.Change(entry)
			}
		}
	}
}
