package edge

import (
	"cmp"
	"slices"
	"sync"

	"github.com/dianchao/dianchao/pkg/meter"
)

// board is what is known of all links, shared by all sessions of a node. Every change has a number; a session that
// follows the board remembers the number it has come to and nothing else, so that a slow client costs no memory and
// skips what changed twice meanwhile.
type board struct {
	known chan struct{} // closed once the board was filled for the first time

	mu      sync.RWMutex
	round   int // grows whenever everything is to be told anew
	last    uint64
	links   map[meter.ConcentratorID]posted
	changes []change      // ascending; only the newest of a concentrator counts
	turned  chan struct{} // closed at the next announcement
}

type posted struct {
	link meter.Link
	at   uint64 // number of its newest change
}

type change struct {
	at           uint64
	concentrator meter.ConcentratorID
}

// place is how far a follower of the board has come. The zero place is before everything.
type place struct {
	round int
	at    uint64
}

func newBoard() *board {
	return &board{known: make(chan struct{}), links: map[meter.ConcentratorID]posted{}, turned: make(chan struct{})}
}

// replace makes links everything that is known; every follower starts anew.
func (b *board) replace(links map[meter.ConcentratorID]meter.Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.round++
	b.links = make(map[meter.ConcentratorID]posted, len(links))
	b.changes = b.changes[:0]
	for _, l := range links {
		b.note(l)
	}
	if b.round == 1 {
		close(b.known)
	}
	b.turn()
}

// put notes one change. Followers hear of it with the next announce.
func (b *board) put(l meter.Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(l)
}

func (b *board) note(l meter.Link) {
	b.last++
	b.links[l.Concentrator] = posted{l, b.last}
	b.changes = append(b.changes, change{b.last, l.Concentrator})
	if len(b.changes) > 2*len(b.links)+64 {
		b.tidy()
	}
}

// tidy drops the changes that do not count any more.
func (b *board) tidy() {
	b.changes = slices.DeleteFunc(b.changes, func(c change) bool { return b.links[c.concentrator].at != c.at })
}

// remove forgets a concentrator. The protocol has no word for that, so every follower starts anew.
func (b *board) remove(c meter.ConcentratorID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.links[c]; !ok {
		return
	}
	delete(b.links, c)
	b.tidy()
	b.round++
}

// announce wakes the followers.
func (b *board) announce() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
}

func (b *board) turn() {
	close(b.turned)
	b.turned = make(chan struct{})
}

// after returns at most limit links that changed after a follower's place, the oldest change first, and the place that
// it has then come to. full says that they replace all it knew. If more is true there are further ones right now; if not,
// turned is closed at the next announcement.
func (b *board) after(p place, limit int) (links []meter.Link, next place, full, more bool, turned <-chan struct{}) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if full = p.round != b.round; full {
		p = place{round: b.round}
	}
	i, _ := slices.BinarySearchFunc(b.changes, p.at+1, func(c change, at uint64) int { return cmp.Compare(c.at, at) })
	links = []meter.Link{}
	for ; i < len(b.changes) && len(links) < limit; i++ {
		c := b.changes[i]
		p.at = c.at
		if l := b.links[c.concentrator]; l.at == c.at {
			links = append(links, l.link)
		}
	}
	return links, p, full, i < len(b.changes), b.turned
}

// turning returns a channel that is closed at the next announcement.
func (b *board) turning() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.turned
}

// link returns what is known of one link.
func (b *board) link(c meter.ConcentratorID) (meter.Link, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	p, ok := b.links[c]
	return p.link, ok
}

// empty reports whether no gateway ever held a link.
func (b *board) empty() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.links) == 0
}

// all returns every link in the order of their concentrators' numbers.
func (b *board) all() []meter.Link {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]meter.Link, 0, len(b.links))
	for _, p := range b.links {
		out = append(out, p.link)
	}
	slices.SortFunc(out, func(x, y meter.Link) int {
		return cmp.Compare(x.Concentrator.String(), y.Concentrator.String())
	})
	return out
}
