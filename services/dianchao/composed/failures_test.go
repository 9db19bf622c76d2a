//go:build composed

package composed

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

var keep = flag.Bool("keep", false, "leave the containers running at the end")

const (
	people = 200
	before = 10 * time.Second // of load until the fault
	least  = 60 * time.Second // of load in all
	after  = 15 * time.Second // of load once all is well again
	outage = 20 * time.Second
)

var rows = []*row{
	{
		tag: "edge", name: "kill -9 one edge of three",
		fault: func(t *testing.T, s *system, _ *crowd) { s.kill(t, s.containers(t, "edge")[0]) },
	},
	{
		tag: "gateway", name: "kill -9 one gateway of two",
		codes: []meter.Code{meter.CodeLinkLost}, most: 0.01,
		fault: func(t *testing.T, s *system, c *crowd) {
			began := time.Now()
			id := s.containers(t, "gateway")[0]
			s.must(t, 20*time.Second, "kill", "--signal", "KILL", id)
			s.eventually(t, "all concentrators are at the other gateway", s.divided)
			c.row.note("all %d concentrators were at the other gateway %.1f s after one was killed", concentrators, time.Since(began).Seconds())
			lasts(t, outage)
			s.must(t, 20*time.Second, "start", id)
		},
	},
	{
		tag: "leader", name: "kill -9 the NATS leader",
		fault: func(t *testing.T, s *system, _ *crowd) { s.kill(t, s.containers(t, s.natsLeader(t))[0]) },
	},
	{
		tag: "pause", name: "pause the NATS leader 20 s",
		codes: []meter.Code{meter.CodeLinkLost, meter.CodeExpired, meter.CodeInternal}, most: 0.01,
		fault: func(t *testing.T, s *system, _ *crowd) {
			id := s.containers(t, s.natsLeader(t))[0]
			s.must(t, 20*time.Second, "pause", id)
			lasts(t, outage)
			s.must(t, 20*time.Second, "unpause", id)
		},
	},
	{
		tag: "cut", name: "one gateway cut off from NATS 20 s",
		codes: []meter.Code{meter.CodeLinkLost, meter.CodeConcentratorOffline, meter.CodeInternal}, most: 0.03,
		fault: func(t *testing.T, s *system, _ *crowd) {
			// Of the bus network alone: its concentrators' connections stay as they are.
			id := s.containers(t, "gateway")[0]
			s.must(t, 20*time.Second, "network", "disconnect", project+"_bus", id)
			lasts(t, outage)
			s.must(t, 20*time.Second, "network", "connect", "--alias", "gateway", project+"_bus", id)
		},
	},
	{
		tag: "scale", name: "edges 1 → 5 → 2", edges: 1,
		codes: []meter.Code{meter.CodeDraining}, most: 0.01,
		fault: func(t *testing.T, s *system, c *crowd) {
			s.scale(t, 5)
			c.row.note("sessions of one edge and four new ones: %s", tally(c.spread()))
			c.reload(5 * time.Second)
			s.eventually(t, "every page is back", c.absent)
			lasts(t, 10*time.Second)
			c.row.note("sessions of the five edges once every page was reloaded: %s", tally(c.spread()))
			s.scale(t, 2)
		},
	},
	{
		tag: "rolling", name: "rolling restart of every container",
		codes: []meter.Code{meter.CodeLinkLost, meter.CodeConcentratorOffline, meter.CodeDraining}, most: 0.03,
		fault: func(t *testing.T, s *system, _ *crowd) {
			// The simulator is not ours: it stands for what is in basements.
			for _, service := range append(slices.Clone(natsNodes), "gateway", "edge", "haproxy") {
				for _, id := range s.containers(t, service) {
					began := time.Now()
					s.must(t, 2*time.Minute, "restart", id) // with the signal and the patience that the compose file gives it
					s.eventually(t, id+" is back", s.unhealthy)
					t.Logf("%s restarted and all was well after %.1f s", id, time.Since(began).Seconds())
				}
			}
		},
	},
	{
		tag: "haproxy", name: "HAProxy restart",
		codes: []meter.Code{meter.CodeLinkLost, meter.CodeConcentratorOffline}, most: 0.05,
		fault: func(t *testing.T, s *system, _ *crowd) {
			s.must(t, 2*time.Minute, "restart", s.containers(t, "haproxy")[0])
		},
	},
}

// divided says how the links are spread over gateways, "" if one holds them all.
func (s *system) divided(ctx context.Context) string {
	by, err := s.links(ctx)
	if err != nil {
		return err.Error()
	}
	for _, n := range by {
		if n == concentrators {
			return ""
		}
	}
	return fmt.Sprint("links by gateway: ", by)
}

// kill -9 a container, which stays away for a while as a machine would.
func (s *system) kill(t *testing.T, id string) {
	t.Helper()
	s.must(t, 20*time.Second, "kill", "--signal", "KILL", id)
	lasts(t, outage)
	s.must(t, 20*time.Second, "start", id)
}

// lasts returns after a time.
func lasts(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
}

func TestFailures(t *testing.T) {
	s := up(t)
	table, notes := []string{heading}, []string(nil)
	for _, r := range rows {
		t.Run(r.tag, func(t *testing.T) {
			line := r.run(t, s)
			table = append(table, line)
			notes = append(notes, r.notes...)
			fmt.Println(line)
		})
		if !r.began.IsZero() && r.recovered.IsZero() {
			t.Errorf("the system did not recover from: %s. What follows would be judged unjustly", r.name)
			break
		}
	}
	t.Run("prometheus", func(t *testing.T) { monitored(t, s) })
	fmt.Printf("\n%d people, a click a second each, %d concentrators with %d meters each\n\n%s\n\n%s\n\n",
		people, concentrators, meters, strings.Join(table, "\n"), strings.Join(notes, "\n"))
}

// run puts the row's load on the system, does harm, sees it recover, and returns the row's line of the table.
func (r *row) run(t *testing.T, s *system) string {
	edges := r.edges
	if edges == 0 {
		edges = 3
	}
	s.scale(t, edges)
	s.balance(t)
	r.idle = make(chan struct{})
	c := gather(t.Context(), people, fmt.Sprintf("ws://127.0.0.1:%d/", httpPort), simulator.Town{Concentrators: concentrators, Meters: meters}.Directory(), r)
	defer c.all.Wait()
	defer c.leave()
	start := time.Now()
	s.eventually(t, "everybody has a session", c.absent)
	lasts(t, before)
	r.began = time.Now()
	r.fault(t, s, c)
	s.eventually(t, "all is well again", s.unhealthy)
	s.eventually(t, "everybody has a session again", c.absent)
	r.recovered = time.Now()
	lasts(t, max(after, least-time.Since(start)))
	ctx, cancel := context.WithTimeout(t.Context(), timeout+grace+after)
	defer cancel()
	if err := r.finish(ctx); err != nil {
		t.Fatalf("clicks did not end: %v", err)
	}
	return r.verdict(t)
}
