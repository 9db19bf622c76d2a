package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/services/simulator"
)

// crowd is clients of one process in one dialect.
type crowd struct {
	process *process
	dialect dialect
	clients []*client
}

// client is one person: one WebSocket, at most one read outstanding.
type client struct {
	number int
	meters []simulator.Entry // of its concentrator
	clicks int
	conn   *websocket.Conn // nil until it is opened
}

// click is one question and what came back. It is judged after the round, so that judging takes no time from what is
// measured.
type click struct {
	entry  simulator.Entry
	id     string
	took   time.Duration
	at     time.Time // of the answer
	answer []byte    // what came instead, if nothing did
	broken bool
}

// newCrowd spreads clients over the concentrators: they share a bus only if there are more of them, and then begin at
// different meters.
func newCrowd(p *process, d dialect, size, meters int) *crowd {
	directory := simulator.Town{Concentrators: concentrators, Meters: meters}.Directory()
	c := &crowd{process: p, dialect: d}
	for i := range size {
		first := i % concentrators * meters
		c.clients = append(c.clients, &client{number: i, meters: directory[first : first+meters], clicks: i / concentrators})
	}
	return c
}

// patience is how long answers may come after the end of a round: longer than a read's own timeout.
const patience = 20 * time.Second

// open connects who is not connected.
func (c *crowd) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, k := range c.clients {
		if k.conn != nil {
			continue
		}
		url := c.process.url + c.dialect.path(k.number)
		conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: c.dialect.subprotocols})
		if err != nil {
			return fmt.Errorf("open a WebSocket (%s): %w", c.dialect.name, err)
		}
		k.conn = conn
		if c.dialect.greets {
			if _, _, err := conn.Read(ctx); err != nil {
				return fmt.Errorf("wait for the greeting (%s): %w", c.dialect.name, err)
			}
		}
	}
	return nil
}

func (c *crowd) close() {
	for _, k := range c.clients {
		if k.conn != nil {
			k.conn.CloseNow()
		}
	}
}

// takeTurns runs rounds of the crowds alternately and returns each one's.
func takeTurns(ctx context.Context, crowds []*crowd, rounds int, length time.Duration) ([][]round, error) {
	out := make([][]round, len(crowds))
	for range rounds {
		for i, c := range crowds {
			r, err := c.round(ctx, length, 0)
			if err != nil {
				return out, err
			}
			out[i] = append(out[i], r)
		}
	}
	return out, nil
}

// round lets every client click for this long. It returns an error if clients cannot connect, or ctx ended.
func (c *crowd) round(ctx context.Context, length, think time.Duration) (round, error) {
	if err := c.open(ctx); err != nil {
		return round{}, err
	}
	runtime.GC() // of what earlier rounds left
	end := time.Now().Add(length)
	bounded, cancel := context.WithDeadline(ctx, end.Add(patience))
	defer cancel()
	cpu := c.process.cpu()
	clicks := make([][]click, len(c.clients))
	var all sync.WaitGroup
	for i, k := range c.clients {
		all.Go(func() { clicks[i] = k.run(bounded, c.dialect, end, think) })
	}
	all.Wait()
	cpu = c.process.cpu() - cpu
	if ctx.Err() != nil {
		return round{}, ctx.Err()
	}
	return judge(slices.Concat(clicks...), c.dialect, end, length, cpu), nil
}

// run clicks until the end, and waits for the last answer until ctx ends. With think it waits before every click, from
// half to one and a half times as long. A connection that breaks ends it.
func (k *client) run(ctx context.Context, d dialect, end time.Time, think time.Duration) []click {
	var all []click
	for {
		if think > 0 {
			select {
			case <-time.After(think/2 + rand.N(think)):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return all
		}
		all = append(all, k.click(ctx, d))
		if all[len(all)-1].broken {
			k.conn.CloseNow()
			k.conn = nil
			return all
		}
	}
}

func (k *client) click(ctx context.Context, d dialect) click {
	c := click{entry: k.meters[k.clicks%len(k.meters)], id: strconv.Itoa(k.number) + "-" + strconv.Itoa(k.clicks)}
	k.clicks++
	question := []byte(d.question(c.id, c.entry))
	began := time.Now()
	err := k.conn.Write(ctx, websocket.MessageText, question)
	if err == nil {
		_, c.answer, err = k.conn.Read(ctx)
	}
	c.at = time.Now()
	c.took = c.at.Sub(began)
	if err != nil {
		c.broken, c.answer = true, []byte(err.Error())
	}
	return c
}

// judge makes a round of its clicks. cpu is what the measured process took for them.
func judge(clicks []click, d dialect, end time.Time, length, cpu time.Duration) round {
	r := round{reads: len(clicks)}
	inTime := 0
	var took []time.Duration
	for _, c := range clicks {
		err := errFailed
		if !c.broken {
			err = d.judge(c)
		}
		switch {
		case err == nil:
			took = append(took, c.took)
			if !c.at.After(end) {
				inTime++
			}
			continue
		case errors.Is(err, errWrong):
			r.wrong++
		default:
			r.failed++
		}
		if r.complaint == nil {
			r.complaint = c.explain(err)
		}
	}
	if n := len(took); n > 0 {
		slices.Sort(took)
		r.p50, r.p99, r.longest = micros(took[n/2]), micros(took[n*99/100]), micros(took[n-1])
		r.cpu = micros(cpu) / float64(n)
	}
	r.perSecond = float64(inTime) / length.Seconds()
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
