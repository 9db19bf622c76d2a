package edge

import "github.com/dianchao/dianchao/pkg/meter"

// presenceLinks bounds how many links one presence message holds.
const presenceLinks = 500

type presenceMessage struct {
	Type  string       `json:"type"`
	Full  bool         `json:"full,omitempty"`
	Links []meter.Link `json:"links"`
}

// follower is a session's subscription to the board. It belongs to the goroutine that writes.
type follower struct {
	// ready can be received from when there may be something to tell; nil if nothing is followed.
	ready <-chan struct{}
	place place
}

var readyNow = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// follow starts telling everything anew, or stops.
func (f *follower) follow(wish bool) {
	*f = follower{}
	if wish {
		f.ready = readyNow
	}
}

// next returns the message that is due, with at most limit links; nil if there is none after all.
func (f *follower) next(b *board, limit int) []byte {
	links, place, full, more, turned := b.after(f.place, limit)
	f.place, f.ready = place, turned
	if more {
		f.ready = readyNow
	}
	if len(links) == 0 && !full {
		return nil
	}
	return encode(presenceMessage{"presence", full, links})
}
