package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// process is a program that is measured.
type process struct {
	url  string // where it is reached, as it says when it is ready
	pid  int
	stop func() // tells it to end, and waits until it has
}

const (
	startPatience = 30 * time.Second
	stopPatience  = 10 * time.Second
)

// ready is what a program says once it is: where it takes WebSockets, or concentrators; a simulator takes nothing.
var ready = regexp.MustCompile(`http://\S+|cjt188=\S+|every concentrator has logged in`)

// start runs a program and waits until it says that it is ready. Its complaints go to our standard error.
func start(ctx context.Context, path string, args ...string) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s (make build builds it): %w", path, err)
	}
	tooLong := time.AfterFunc(startPatience, cancel)
	defer tooLong.Stop()
	lines := bufio.NewScanner(output)
	var url string
	for url == "" && lines.Scan() {
		url = ready.FindString(lines.Text())
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, output) // what it says later must not block it
		_ = cmd.Wait()                     // it was told to end, or its standard error says why it did
	}()
	p := &process{url, cmd.Process.Pid, func() { cancel(); <-gone }}
	if url == "" {
		p.stop()
		return nil, fmt.Errorf("%s ended before it was ready", path)
	}
	return p, nil
}

// userHertz is the unit of time in /proc, the same on every Linux that Go runs on.
const userHertz = 100

// cpu is the time that the process has spent on all CPUs, to 10 ms; 0 where there is no /proc.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0
	}
	// proc(5): utime and stime are fields 14 and 15. The name, field 2, ends with the last bracket and may hold blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system time.Duration
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0
	}
	return (user + system) * time.Second / userHertz
}
