//go:build composed

package composed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dianchao/dianchao/services/simulator"
)

// crowd is the people of one row.
type crowd struct {
	row     *row
	clients []*client
	leave   context.CancelFunc
	all     sync.WaitGroup
}

func gather(ctx context.Context, size int, url string, town []simulator.Entry, r *row) *crowd {
	c := &crowd{row: r}
	ctx, c.leave = context.WithCancel(ctx)
	for i := range size {
		k := newClient(ctx, i, url, town, r)
		c.clients = append(c.clients, k)
		c.all.Go(func() { k.run() })
	}
	return c
}

// spread counts open sessions by edge; under "" those who have none.
func (c *crowd) spread() map[string]int {
	answers := make(chan string, len(c.clients))
	for _, k := range c.clients {
		k.post(func() {
			edge := ""
			if k.current != nil && k.current.greeted {
				edge = k.current.edge
			}
			answers <- edge
		})
	}
	out := make(map[string]int)
	for range c.clients {
		out[<-answers]++
	}
	return out
}

// reload has every page reloaded within a time.
func (c *crowd) reload(within time.Duration) {
	for _, k := range c.clients {
		k.post(func() { k.after(rand.N(within), k.reload) })
	}
}

// absent says how many have no session, "" if nobody.
func (c *crowd) absent(context.Context) string {
	if n := c.spread()[""]; n > 0 {
		return fmt.Sprintf("%d of %d clients have no session", n, len(c.clients))
	}
	return ""
}
