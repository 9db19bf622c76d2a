package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// round is what a crowd saw for a while. Times are in µs.
type round struct {
	reads, failed, wrong int
	p50, p99, longest    float64
	perSecond            float64 // right answers within the round
	cpu                  float64 // of the measured process, a read
	complaint            error   // the first thing that was not right
}

// report is what a run found.
type report struct {
	CPUs         int     `json:"cpus"`
	Go           string  `json:"go"`
	Platform     string  `json:"platform"`
	Rounds       int     `json:"rounds"`
	RoundSeconds float64 `json:"round_seconds"`
	Rows         []row   `json:"rows"`
	complaint    error
}

// row is one subject in one step. Times are in µs.
type row struct {
	Clients   int     `json:"clients"`
	Subject   string  `json:"subject"`
	PerSecond figure  `json:"reads_per_second"`
	P50       figure  `json:"p50_us"`
	P99       figure  `json:"p99_us"`
	CPU       figure  `json:"cpu_us_per_read"` // of the measured process
	Longest   float64 `json:"longest_us"`
	Reads     int     `json:"reads"`
	Failed    int     `json:"failed"`
	Wrong     int     `json:"wrong"`
}

// figure is the median over rounds with the least and the most, and the median as a ratio to the floor's.
type figure struct {
	Median  float64 `json:"median"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	ToFloor float64 `json:"to_floor,omitempty"`
}

func newReport(rounds int, length time.Duration) *report {
	return &report{runtime.NumCPU(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, rounds, length.Seconds(), nil, nil}
}

// add takes in the rounds of a subject, and of the floor at the same time if that was measured.
func (r *report) add(subject string, clients int, rounds, floor []round) {
	compare := func(value func(round) float64) figure {
		f := summarize(rounds, value)
		if lowest := summarize(floor, value).Median; lowest > 0 {
			f.ToFloor = f.Median / lowest
		}
		return f
	}
	line := row{
		Clients: clients, Subject: subject,
		PerSecond: compare(func(r round) float64 { return r.perSecond }),
		P50:       compare(func(r round) float64 { return r.p50 }),
		P99:       compare(func(r round) float64 { return r.p99 }),
		CPU:       compare(func(r round) float64 { return r.cpu }),
		Longest:   summarize(rounds, func(r round) float64 { return r.longest }).Most,
	}
	for _, one := range rounds {
		line.Reads += one.reads
		line.Failed += one.failed
		line.Wrong += one.wrong
		if r.complaint == nil {
			r.complaint = one.complaint
		}
	}
	r.Rows = append(r.Rows, line)
}

func summarize(rounds []round, value func(round) float64) figure {
	if len(rounds) == 0 {
		return figure{}
	}
	all := make([]float64, len(rounds))
	for i, r := range rounds {
		all[i] = value(r)
	}
	slices.Sort(all)
	return figure{Median: all[len(all)/2], Least: all[0], Most: all[len(all)-1]}
}

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	fmt.Fprintf(w, "%d CPUs, %s %s, shared by the measured process and the clients; the other process is idle meanwhile.\n", r.CPUs, r.Go, r.Platform)
	fmt.Fprintf(w, "%d rounds of %.2f s each in turns: median, half the spread, × the floor's median. Times in µs.\n", r.Rounds, r.RoundSeconds)
	fmt.Fprintln(w, "dianchao's process simulates its concentrators too; the floor's devices send constant bytes.")
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "clients\tsubject\treads/s\t\t\tp50\t\t\tp99\t\t\tCPU/read\t\t\tlongest\treads\tfailed\twrong\t")
	for _, l := range r.Rows {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%.0f\t%d\t%d\t%d\t\n", l.Clients, l.Subject,
			l.PerSecond, l.P50, l.P99, l.CPU, l.Longest, l.Reads, l.Failed, l.Wrong)
	}
	return t.Flush()
}

// String is three cells of the table.
func (f figure) String() string {
	cells := fmt.Sprintf("%.0f\t", f.Median)
	if f.Most > f.Least {
		cells += fmt.Sprintf("±%.0f%%", 100*(f.Most-f.Least)/2/f.Median)
	}
	cells += "\t"
	if f.ToFloor > 0 {
		cells += fmt.Sprintf("×%.2f", f.ToFloor)
	}
	return cells
}
