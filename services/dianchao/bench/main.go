// Command bench measures what a click costs over the whole way, from a WebSocket to a concentrator's TCP link and
// back, next to a floor: the same way with bare handlers and nothing that checks, queues or keeps anything. Both run
// as processes of their own and take turns under the same load within the same minute, so that the ratio between
// them says more than either figure does on a machine that others use too.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type commands struct {
	Measure measureCommand `cmd:"" default:"withargs" help:"Measure dianchao next to the floor (this is the default)."`
	Links   linksCommand   `cmd:"" help:"Measure ten thousand links on one gateway process: its memory, and reads while thousands log in."`
	Bus     busCommand     `cmd:"" help:"Measure one bus that many people and a night's job want at once, a dead meter among its meters."`
	Floor   floorCommand   `cmd:"" help:"Serve the floor until interrupted; measure starts it by itself."`
}

type measureCommand struct {
	Binary  string        `default:"bin/dianchao" placeholder:"PATH" help:"The program to measure."`
	Clients []int         `default:"1,50,200" help:"How many clients, one step each."`
	Rounds  int           `default:"5" help:"How often floor and dianchao take turns in a step."`
	For     time.Duration `default:"2s" help:"How long a round is at most; less if the run would take longer than --seconds."`
	Think   time.Duration `default:"10s" help:"How long 200 clients click about once a second in the end; 0 to leave it out."`
	Seconds int           `default:"85" help:"About how long the whole run may take."`
	Meters  int           `default:"20" help:"Meters behind each of the 200 simulated concentrators."`
	JSON    bool          `name:"json" help:"Print JSON instead of a table."`
}

const (
	concentrators = 200 // simulated, and devices of the floor
	thinkers      = 200
	thinkTime     = time.Second
	overhead      = 6 * time.Second // of a run, for starting, connecting and stopping
	judging       = 0.15            // of a round, after it
	leastRound    = 50 * time.Millisecond
)

// length is how long a round can be. It returns an error that names the flags to change.
func (c measureCommand) length() (time.Duration, error) {
	if c.Rounds < 1 || c.Meters < 1 || len(c.Clients) == 0 {
		return 0, errors.New("--rounds, --meters and --clients must each be at least 1")
	}
	rounds := float64(3*len(c.Clients)*c.Rounds) * (1 + judging)
	left := time.Duration(c.Seconds)*time.Second - overhead - c.Think
	length := min(c.For, time.Duration(float64(left)/rounds)).Truncate(time.Millisecond)
	if length < leastRound {
		return 0, fmt.Errorf("a round would take %s: take more --seconds, a longer --for, or fewer --clients and --rounds", length)
	}
	return length, nil
}

// Run measures and prints. It returns an error also if a read failed or was answered wrongly.
func (c measureCommand) Run(ctx context.Context) error {
	r, err := c.measure(ctx)
	if err != nil {
		return err
	}
	if err := r.print(os.Stdout, c.JSON); err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	return r.complaint
}

func (c measureCommand) measure(ctx context.Context) (*report, error) {
	length, err := c.length()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program of the floor: %w", err)
	}
	lowest, err := start(ctx, self, "floor")
	if err != nil {
		return nil, err
	}
	defer lowest.stop()
	ours, err := start(ctx, c.Binary, "standalone", "--log-level=warn", "--bus-gap=0s",
		"--http=127.0.0.1:0", "--nats=127.0.0.1:0", "--listen=cjt188=127.0.0.1:0",
		fmt.Sprintf("--simulate=%dx%d", concentrators, c.Meters))
	if err != nil {
		return nil, err
	}
	defer ours.stop()

	r := newReport(c.Rounds, length)
	for _, clients := range c.Clients {
		crowds := []*crowd{
			newCrowd(lowest, floorDialect, clients, c.Meters),
			newCrowd(ours, clickToCopyDialect, clients, c.Meters),
			newCrowd(ours, sessionDialect, clients, c.Meters),
		}
		rounds, err := takeTurns(ctx, crowds, c.Rounds, length)
		for i, crowd := range crowds {
			crowd.close()
			r.add(crowd.dialect.name, clients, rounds[i], rounds[0])
		}
		if err != nil {
			return nil, err
		}
	}
	if c.Think == 0 {
		return r, nil
	}
	thinking := newCrowd(ours, sessionDialect, thinkers, c.Meters)
	defer thinking.close()
	one, err := thinking.round(ctx, c.Think, thinkTime)
	if err != nil {
		return nil, err
	}
	r.add(sessionDialect.name+", a click a second", thinkers, []round{one}, nil)
	return r, nil
}

func main() {
	var c commands
	parsed := kong.Parse(&c, kong.Name("bench"), kong.Description("What a click costs, what a link costs, and what a bus takes."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
