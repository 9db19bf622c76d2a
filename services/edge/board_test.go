package edge

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Whatever happens to the board and however seldom a follower looks, once it has caught up it knows what the board does.
func TestFollowerCatchesUp(t *testing.T) {
	const limit = 5
	rapid.Check(t, func(t *rapid.T) {
		b := newBoard()
		b.replace(nil)
		var f follower
		f.follow(true)
		seen := map[string]string{}
		// step takes one message, if one is due.
		step := func(t *rapid.T) bool {
			select {
			case <-f.ready:
			default:
				return false
			}
			text := f.next(b, limit)
			if text == nil {
				return true
			}
			var m struct {
				Full  bool
				Links []meter.Link
			}
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			if len(m.Links) > limit {
				t.Fatalf("a message holds %d links", len(m.Links))
			}
			if m.Full {
				clear(seen)
			}
			for _, l := range m.Links {
				seen[l.Concentrator.String()] = l.Reason
			}
			return true
		}
		gateway, err := meter.ParseGatewayID("gw-1")
		if err != nil {
			t.Fatal(err)
		}
		number := rapid.IntRange(1, 12)
		version := 0
		link := func(i int) meter.Link {
			version++
			c, err := meter.ParseConcentratorID(fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			return meter.Link{Concentrator: c, State: meter.LinkDown, Gateway: gateway, Reason: fmt.Sprint(version)}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put":    func(t *rapid.T) { b.put(link(number.Draw(t, "n"))); b.announce() },
			"remove": func(t *rapid.T) { b.remove(link(number.Draw(t, "n")).Concentrator); b.announce() },
			"flap": func(t *rapid.T) {
				for range 300 {
					b.put(link(1))
				}
				b.announce()
			},
			"replace": func(t *rapid.T) {
				links := map[meter.ConcentratorID]meter.Link{}
				for i := range number.Draw(t, "n") {
					l := link(i + 1)
					links[l.Concentrator] = l
				}
				b.replace(links)
			},
			"look":      func(t *rapid.T) { step(t) },
			"look anew": func(*rapid.T) { f.follow(true) },
			"": func(t *rapid.T) {
				if len(b.changes) > 2*len(b.links)+64 {
					t.Fatalf("%d changes are kept of %d links", len(b.changes), len(b.links))
				}
			},
		})
		for step(t) {
		}
		known := map[string]string{}
		for _, l := range b.all() {
			known[l.Concentrator.String()] = l.Reason
		}
		if !maps.Equal(seen, known) {
			t.Fatalf("the follower knows %d links, the board %d", len(seen), len(known))
		}
	})
}
