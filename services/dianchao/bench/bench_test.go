package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// TestMain lets the test program be started as the floor, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "floor" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTheFloorAnswersEveryClient(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	url, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- serveFloor(ctx, func(u string) { url <- u }) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the floor ended with: %v", err)
		}
	}()
	var at string
	select {
	case at = <-url:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the floor did not start: %v", err)
	}
	crowd := newCrowd(&process{url: at, pid: os.Getpid()}, floorDialect, 3, 1)
	defer crowd.close()
	for range 2 {
		r, err := crowd.round(t.Context(), 100*time.Millisecond, 0)
		if err != nil {
			t.Fatal(err)
		}
		if r.reads < 3 || r.failed+r.wrong > 0 {
			t.Fatalf("%+v", r)
		}
	}
}

// build builds the program that is measured.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "dianchao")
	if out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

func TestLinksAreMeasured(t *testing.T) {
	c := linksCommand{Binary: build(t), Links: 30, Logins: 20, Heartbeat: time.Second, Idle: 100 * time.Millisecond, For: 300 * time.Millisecond, Readers: 5}
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Readers = 11
	if err := c.Run(t.Context()); err == nil {
		t.Fatal("11 readers began on 10 links")
	}
}

func TestABusIsMeasured(t *testing.T) {
	c := busCommand{Binary: build(t), Meters: 20, Clicks: 3, Delay: 5 * time.Millisecond, Gap: time.Millisecond, Runs: 1}
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Delay = time.Minute
	if err := c.Run(t.Context()); err == nil {
		t.Fatal("a job that cannot end in time was begun")
	}
}

func TestAWholeRunLosesNothing(t *testing.T) {
	c := measureCommand{Binary: build(t), Clients: []int{3, 201}, Rounds: 1, For: 100 * time.Millisecond, Think: 2 * time.Second, Seconds: 60, Meters: 2}
	r, err := c.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.complaint != nil {
		t.Error(r.complaint)
	}
	if len(r.Rows) != 7 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for _, line := range r.Rows {
		if line.Reads == 0 || line.Failed+line.Wrong > 0 || line.P50.Median <= 0 || line.Longest < line.P99.Median {
			t.Errorf("%+v", line)
		}
	}
	var table, asJSON bytes.Buffer
	if err := errors.Join(r.print(&table, false), r.print(&asJSON, true)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(table.Bytes(), []byte("dianchao.v1")) || !json.Valid(asJSON.Bytes()) {
		t.Fatalf("%s\n%s", &table, &asJSON)
	}
}

func TestAnswersAreJudged(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	entries := simulator.Town{Concentrators: 1, Meters: 2}.Directory()
	first, second := entries[0], entries[1]
	volume := func(e simulator.Entry, at time.Time) meter.Decimal {
		return simulator.Volume(e.Concentrator, e.Meter, at)
	}
	page := func(e simulator.Entry, v meter.Decimal) string {
		return fmt.Sprintf(`{"ConcentratorNo":%q,"WaterMtrAddress":%q,"AccumVal":%s,"IsDownCommand":true}`, e.Concentrator, e.Meter, v)
	}
	session := func(id string, e simulator.Entry, v meter.Decimal) string {
		return fmt.Sprintf(`{"type":"answer","id":%q,"concentrator":%q,"meter":%q,"stage":"done","reading":{"volume_m3":%q}}`, id, e.Concentrator, e.Meter, v)
	}
	for _, row := range []struct {
		name    string
		dialect dialect
		answer  string
		want    error
	}{
		{"floor", floorDialect, floorAnswer, nil},
		{"floor, something else", floorDialect, `{}`, errWrong},
		{"page", clickToCopyDialect, page(first, volume(first, now)), nil},
		{"page, another meter", clickToCopyDialect, page(second, volume(second, now)), errWrong},
		{"page, another meter's volume", clickToCopyDialect, page(first, volume(second, now)), errWrong},
		{"page, yesterday's volume", clickToCopyDialect, page(first, volume(first, now.AddDate(0, 0, -1))), errWrong},
		{"page, a failure", clickToCopyDialect, "集中器 101 不在线", errFailed},
		{"session", sessionDialect, session("7", first, volume(first, now)), nil},
		{"session, another click", sessionDialect, session("6", first, volume(first, now)), errWrong},
		{"session, another meter", sessionDialect, session("7", second, volume(second, now)), errWrong},
		{"session, another meter's volume", sessionDialect, session("7", first, volume(second, now)), errWrong},
		{"session, a failure", sessionDialect, `{"type":"answer","id":"7","concentrator":"101","meter":"101001","stage":"failed","error":{"code":"meter_silent","message":"","retry":true}}`, errFailed},
		{"session, an error", sessionDialect, `{"type":"error","error":{"code":"bad_command","message":"","retry":false}}`, errFailed},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := click{entry: first, id: "7", at: now, answer: []byte(row.answer)}
			if err := row.dialect.judge(c); !errors.Is(err, row.want) {
				t.Fatalf("got %v, want %v", err, row.want)
			}
			r := judge([]click{c}, row.dialect, now, time.Second, 0)
			if (r.complaint == nil) != (row.want == nil) || r.wrong+r.failed > 1 || r.perSecond != float64(1-r.wrong-r.failed) {
				t.Fatalf("%+v", r)
			}
		})
	}
}

func TestARunKeepsWithinItsTime(t *testing.T) {
	for _, row := range []struct {
		name    string
		command measureCommand
		want    time.Duration // 0: refused
	}{
		{"as long as asked", measureCommand{Clients: []int{1}, Rounds: 1, Meters: 1, For: time.Second, Seconds: 60}, time.Second},
		{"shorter", measureCommand{Clients: []int{1, 2}, Rounds: 10, Meters: 1, For: time.Minute, Seconds: 75}, time.Second},
		{"no time left", measureCommand{Clients: []int{1}, Rounds: 1, Meters: 1, For: time.Second, Think: time.Minute, Seconds: 60}, 0},
		{"no round", measureCommand{Clients: []int{1}, Meters: 1, For: time.Second, Seconds: 60}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.command.length()
			if got != row.want || (err != nil) != (row.want == 0) {
				t.Fatalf("got %s, %v, want %s", got, err, row.want)
			}
		})
	}
}
