package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

type busCommand struct {
	Binary string        `default:"bin/dianchao" placeholder:"PATH" help:"The program to measure."`
	Meters int           `default:"300" help:"How many meters a night's job reads on the one bus, one of them dead."`
	Clicks int           `default:"20" help:"How many people click on other meters of that bus at the same moment, and then one after the other."`
	Delay  time.Duration `default:"100ms" help:"How long a meter takes to answer."`
	Gap    time.Duration `default:"20ms" help:"Silence on the bus between two exchanges."`
	Runs   int           `default:"3" help:"How often all this is done, each time on a bus that knows nothing."`
}

// Run measures a gateway process next to a process that simulates its one concentrator; NATS and who asks are here.
func (c busCommand) Run(ctx context.Context) error {
	if c.Meters < 3 || c.Meters >= simulator.MaxMeters || c.Clicks < 1 || c.Meters-1+c.Clicks > simulator.MaxMeters || c.Runs < 1 {
		return fmt.Errorf("--meters must be at least 3, --clicks and --runs at least 1, and a bus has at most %d meters", simulator.MaxMeters)
	}
	if floor := c.floor(c.Meters + 2*c.Clicks); floor > meter.MaxTimeout*3/4 {
		return fmt.Errorf("the bus would take %s, too near to what a command may take at most (%s): take fewer --meters or less --delay", floor, meter.MaxTimeout)
	}
	fmt.Printf("%d CPUs, %s; an exchange takes at least %s\n", runtime.NumCPU(), runtime.Version(), c.Delay+c.Gap)
	for run := range c.Runs {
		for _, scattered := range []bool{false, true} {
			if err := c.run(ctx, run+1, scattered); err != nil {
				return err
			}
		}
	}
	return nil
}

// floor is what so many exchanges take on a bus on which nothing else takes time.
func (c busCommand) floor(exchanges int) time.Duration {
	return time.Duration(exchanges) * (c.Delay + c.Gap)
}

// run reads everything once, people clicking at the same moment or, scattered, over the whole time of the job.
func (c busCommand) run(ctx context.Context, number int, scattered bool) error {
	r, err := startRig(ctx, c.Binary, "--bus-gap="+c.Gap.String())
	if err != nil {
		return err
	}
	defer r.close()
	// The last meter of the directory is not installed: nobody answers to its address.
	town := simulator.Town{Concentrators: 1, Meters: c.Meters - 1 + c.Clicks}
	if _, err := r.simulate(ctx, "--simulate="+town.String(), "--simulate-delay="+c.Delay.String()); err != nil {
		return err
	}
	if err := r.up.wait(ctx, 1); err != nil {
		return err
	}
	everybody := simulator.Town{Concentrators: 1, Meters: town.Meters + 1}.Directory()
	clicked, job, dead := everybody[:c.Clicks], everybody[c.Clicks:town.Meters], everybody[town.Meters]
	job = append(append(append([]simulator.Entry{}, job[:len(job)/2]...), dead), job[len(job)/2:]...)

	var total time.Duration
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { total, err = c.batch(ctx, r, job, dead); return err })
	clicks := make([]time.Duration, len(clicked))
	every := c.floor(len(job)) / time.Duration(len(clicked)+1)
	for i, e := range clicked {
		group.Go(func() (err error) {
			wait := every
			if scattered {
				wait = time.Duration(i+1) * every
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
			clicks[i], err = r.read(ctx, e, meter.Command{Timeout: meter.DefaultTimeout})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	when := "at the same moment"
	if scattered {
		when = "every " + round2(every).String()
	}
	floor := c.floor(len(job) - 1 + len(clicked))
	fmt.Printf("run %d: %d clicks %s: %s; the job's %d meters took %s, the floor of %d answered exchanges is %s (%+.1f%%)\n",
		number, len(clicks), when, latencies{took: clicks}, len(job), round2(total), len(job)-1+len(clicked), floor,
		100*(total.Seconds()/floor.Seconds()-1))
	return nil
}

// batch reads the job's meters in the batch lane, asking for all of them at once, and returns how long all of it took. The dead meter must be said to
// be silent, every other must be read.
func (c busCommand) batch(ctx context.Context, r *rig, job []simulator.Entry, dead simulator.Entry) (time.Duration, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range job {
		group.Go(func() error {
			_, err := r.read(ctx, e, meter.Command{Timeout: meter.MaxTimeout, Lane: meter.LaneBatch})
			if e != dead {
				return err
			}
			var failed *meter.Error
			if !errors.As(err, &failed) || failed.Code != meter.CodeMeterSilent {
				return fmt.Errorf("the dead meter %s was not said to be silent: %v", e.Meter, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(began), err
}
