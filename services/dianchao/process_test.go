package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen soon.
const patience = 30 * time.Second

// binary is the program, built once as `make build` does but with the race detector.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dianchao-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "dianchao")
	out, err := exec.Command("go", "build", "-race", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a program that a test has started.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
	grown  chan struct{} // closed and renewed whenever output grows
	exited chan struct{}
}

// start runs a program; whatever is left of it at the end of the test is killed.
func start(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), grown: make(chan struct{}), exited: make(chan struct{})}
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	var read sync.WaitGroup
	read.Go(func() {
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadBytes('\n')
			p.mu.Lock()
			p.output.Write(line)
			close(p.grown)
			p.grown = make(chan struct{})
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	go func() {
		_ = p.cmd.Wait()
		w.Close()
		read.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s %s said:\n%s", filepath.Base(path), strings.Join(args, " "), p.said())
		}
	})
	return p
}

// dianchao runs a subcommand of the program.
func dianchao(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, path, args...)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// says waits until the output matches, and returns the first group (or the match).
func (p *process) says(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		m, grown := re.FindStringSubmatch(p.output.String()), p.grown
		p.mu.Unlock()
		if m != nil {
			return m[len(m)-1]
		}
		select {
		case <-grown:
		case <-p.exited:
			if re.MatchString(p.said()) {
				continue
			}
			p.t.Fatalf("ended without saying %q:\n%s", pattern, p.said())
		case <-deadline:
			p.t.Fatalf("did not say %q:\n%s", pattern, p.said())
		}
	}
}

// ends waits for the exit code.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("did not end:\n%s", p.said())
		return -1
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// tool returns the path of a program that `make tools` installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", ".tools", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not there, run make tools: %v", name, err)
	}
	return path
}

// eventually waits until ok, polling.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
