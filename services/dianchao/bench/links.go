package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

type linksCommand struct {
	Binary    string        `default:"bin/dianchao" placeholder:"PATH" help:"The program to measure."`
	Links     int           `default:"10000" help:"How many concentrators are linked to one gateway."`
	Logins    int           `default:"5000" help:"How many of them leave and log in again at the same time, while others are read."`
	Heartbeat time.Duration `default:"10s" help:"How often each of them sends its heartbeat."`
	Idle      time.Duration `default:"30s" help:"How long the links are idle before the gateway's memory is looked at."`
	For       time.Duration `default:"5s" help:"How long reads are measured before and after the logins."`
	Readers   int           `default:"20" help:"How many clients read, about ten times a second each, over links that stay."`
}

// spareFiles is how many descriptors a process needs beside its links.
const spareFiles = 256

const readerThink = 100 * time.Millisecond

// Run measures a gateway process next to a process that simulates its concentrators; NATS and the readers are here.
func (c linksCommand) Run(ctx context.Context) error {
	if c.Logins < 1 || c.Readers < 1 || c.Links < c.Logins+c.Readers {
		return errors.New("--logins and --readers must be at least 1, and --links at least both together")
	}
	if err := allowFiles(uint64(c.Links + spareFiles)); err != nil {
		return err
	}
	r, err := startRig(ctx, c.Binary)
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("%d CPUs, %s, shared by gateway, simulator, NATS and readers\n", runtime.NumCPU(), runtime.Version())

	empty := r.gateway.memory()
	began := time.Now()
	town, err := r.simulate(ctx, fmt.Sprintf("--simulate=%dx20", c.Links), "--simulate-heartbeat="+c.Heartbeat.String())
	if err != nil {
		return err
	}
	if err := r.up.wait(ctx, c.Links); err != nil {
		return err
	}
	fmt.Printf("%d logins within %s of the simulator's start\n", c.Links, round2(time.Since(began)))
	fmt.Printf("gateway's memory with no link: %d KiB\n", empty)
	tell := func(when string) {
		now := r.gateway.memory()
		fmt.Printf("gateway's memory %s: %d KiB, %.1f KiB a link\n", when, now, float64(now-empty)/float64(c.Links))
	}
	tell("right after the logins")
	if err := pause(ctx, c.Idle); err != nil {
		return err
	}
	tell(fmt.Sprintf("after %s of heartbeats", c.Idle))
	if err := c.readAll(ctx, r); err != nil {
		return err
	}
	if err := pause(ctx, c.Idle); err != nil {
		return err
	}
	tell(fmt.Sprintf("%s after every link was read once", c.Idle))
	return c.storm(ctx, r, town)
}

// readAll reads one meter over every link.
func (c linksCommand) readAll(ctx context.Context, r *rig) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.Readers)
	for _, e := range (simulator.Town{Concentrators: c.Links, Meters: 1}).Directory() {
		group.Go(func() error {
			_, err := r.read(ctx, e, meter.Command{Timeout: meter.DefaultTimeout})
			return err
		})
	}
	return group.Wait()
}

// storm lets some of the links log in again while others are read.
func (c linksCommand) storm(ctx context.Context, r *rig, town *process) error {
	leaving := simulator.Town{Concentrators: c.Links, Meters: 1}.Directory()[c.Links-c.Logins:]
	if err := town.plugs(ctx, leaving, "unplug"); err != nil {
		return err
	}
	if err := r.up.wait(ctx, c.Links-c.Logins); err != nil {
		return err
	}
	before, err := c.read(ctx, r, func(ctx context.Context) error { return pause(ctx, c.For) })
	if err != nil {
		return err
	}
	var took time.Duration
	during, err := c.read(ctx, r, func(ctx context.Context) error {
		began := time.Now()
		if err := town.plugs(ctx, leaving, "plug"); err != nil {
			return err
		}
		err := r.up.wait(ctx, c.Links)
		took = time.Since(began)
		return err
	})
	if err != nil {
		return err
	}
	after, err := c.read(ctx, r, func(ctx context.Context) error { return pause(ctx, c.For) })
	if err != nil {
		return err
	}
	fmt.Printf("%d logins within %s, from the first plug to the last entry in the bucket links\n", c.Logins, round2(took))
	fmt.Printf("reads before the logins: %s\nreads during the logins: %s\nreads after the logins:  %s\n", before, during, after)
	if n := before.failed + during.failed + after.failed; n > 0 {
		return fmt.Errorf("%d reads failed: %w", n, errors.Join(before.complaint, during.complaint, after.complaint))
	}
	return nil
}

// latencies are how long reads took.
type latencies struct {
	took      []time.Duration
	failed    int
	complaint error
}

func (l latencies) String() string {
	if len(l.took) == 0 {
		return "none"
	}
	slices.Sort(l.took)
	at := func(share float64) time.Duration { return round2(l.took[int(share*float64(len(l.took)-1))]) }
	return fmt.Sprintf("%d, %d failed, p50 %s, p99 %s, longest %s", len(l.took), l.failed, at(0.5), at(0.99), at(1))
}

// read has the readers click until what ends.
func (c linksCommand) read(ctx context.Context, r *rig, what func(context.Context) error) (latencies, error) {
	group, ctx := errgroup.WithContext(ctx)
	over := make(chan struct{})
	group.Go(func() error { defer close(over); return what(ctx) })
	staying := simulator.Town{Concentrators: c.Links - c.Logins, Meters: 20}.Directory()
	var mu sync.Mutex
	var all latencies
	for range c.Readers {
		group.Go(func() error {
			for {
				select {
				case <-over:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(readerThink/2 + rand.N(readerThink)):
				}
				took, err := r.read(ctx, staying[rand.N(len(staying))], meter.Command{Timeout: meter.DefaultTimeout})
				mu.Lock()
				all.took = append(all.took, took)
				if err != nil {
					all.failed++
					all.complaint = err
				}
				mu.Unlock()
			}
		})
	}
	err := group.Wait()
	return all, err
}

// plugs pulls or puts in the plugs of concentrators, eight at a time.
func (p *process) plugs(ctx context.Context, all []simulator.Entry, what string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	for _, e := range all {
		group.Go(func() error {
			url := p.url + "/" + e.Concentrator.String() + "/" + what
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", url, response.Status)
			}
			return json.NewDecoder(response.Body).Decode(&struct{}{})
		})
	}
	return group.Wait()
}

// tally counts the links that are up, from what the gateway tells everybody.
type tally struct {
	mu    sync.Mutex
	up    map[meter.ConcentratorID]bool
	grown chan struct{}
}

func newTally() *tally {
	return &tally{up: make(map[meter.ConcentratorID]bool), grown: make(chan struct{}, 1)}
}

func (t *tally) take(m *nats.Msg) {
	var l meter.Link
	if json.Unmarshal(m.Data, &l) != nil {
		return // nobody else is on this NATS; a link that is missed shows as one that never comes
	}
	t.mu.Lock()
	if l.State == meter.LinkUp {
		t.up[l.Concentrator] = true
	} else {
		delete(t.up, l.Concentrator)
	}
	t.mu.Unlock()
	select {
	case t.grown <- struct{}{}:
	default:
	}
}

// wait returns once exactly n links are up.
func (t *tally) wait(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		t.mu.Lock()
		up := len(t.up)
		t.mu.Unlock()
		if up == n {
			return nil
		}
		select {
		case <-t.grown:
		case <-ctx.Done():
			return fmt.Errorf("%d links are up instead of %d: %w", up, n, ctx.Err())
		}
	}
}

// allowFiles raises this process's limit of open files, which the programs that it starts inherit.
func allowFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("look at the limit of open files: %w", err)
	}
	limit.Cur, limit.Max = max(n, limit.Cur), max(n, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d open files are needed; raise the limit with ulimit -n %d, or take fewer --links: %w", n, n, err)
	}
	return nil
}

// memory is the process's resident memory in KiB; 0 where there is no /proc.
func (p *process) memory() int {
	// proc(5), statm: the second number is the resident set in pages.
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0
	}
	return resident * os.Getpagesize() / 1024
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// round2 leaves what anybody wants to read of a duration.
func round2(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
