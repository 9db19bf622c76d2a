package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/dianchao/dianchao/pkg/meter"
)

var freePorts = []string{"--http=127.0.0.1:0", "--nats=127.0.0.1:0", "--listen=cjt188=127.0.0.1:0"}

const (
	consoleLine = `console +(http://localhost:\d+)`
	natsLine    = `NATS +(nats://127\.0\.0\.1:\d+)`
)

// clicks reads a meter over HTTP until it succeeds.
func clicks(t *testing.T, url, concentrator, address string) meter.Answer {
	t.Helper()
	var a meter.Answer
	eventually(t, address+" is read", func() bool {
		r, err := http.Post(url+"/v1/reads", "application/json", strings.NewReader(`{"concentrator":"`+concentrator+`","meter":"`+address+`","timeout_ms":2000}`))
		if err != nil {
			return false
		}
		defer r.Body.Close()
		a = meter.Answer{}
		return json.NewDecoder(r.Body).Decode(&a) == nil && a.Stage == meter.StageDone
	})
	return a
}

func TestStandaloneStartsReadsAndStopsOnCtrlC(t *testing.T) {
	p := dianchao(t, append([]string{"standalone"}, freePorts...)...)
	url := p.says(consoleLine)
	p.says("Ctrl-C stops it")
	if a := clicks(t, url, "101", "101001"); a.Meter.String() != "101001" || a.Reading.Volume == nil {
		t.Fatalf("%+v", a)
	}
	p.signal(syscall.SIGINT)
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.said())
	}
}

func TestATakenPortIsOneSentence(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--http=", "--nats=", "--listen=cjt188="} {
		t.Run(flag, func(t *testing.T) {
			p := dianchao(t, append(append([]string{"standalone"}, freePorts...), flag+taken.Addr().String())...)
			if code := p.ends(); code != 1 {
				t.Fatalf("exit code %d", code)
			}
			said := strings.TrimSpace(regexp.MustCompile(`(?m)^time=.* level=INFO .*$`).ReplaceAllString(p.said(), ""))
			if strings.Count(said, "\n") != 0 || !strings.Contains(said, taken.Addr().String()) || !regexp.MustCompile("taken|in use").MatchString(said) {
				t.Fatalf("said:\n%s", said)
			}
		})
	}
}

func TestSettingsThatCannotBeUsedAreNamed(t *testing.T) {
	for _, row := range []struct{ name, want string }{
		{"--listen=modbus=:1", "modbus"},
		{"--listen=clicktocopy=:1", "clicktocopy"},
		{"--dial=clicktocopy=127.0.0.1:1", "HOST:PORT@NUMBER"},
		{"--dial=clicktocopy=127.0.0.1:1@1.2", `"1.2"`},
		{"--simulate=3", "3"},
		{"--gateway-id=a.b", "a.b"},
		{"--bus-queue=0", "--bus-queue"},
		{"--cjt188-registration=(", "registration"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := dianchao(t, append(append([]string{"standalone"}, freePorts...), row.name)...)
			if code := p.ends(); code == 0 || !strings.Contains(p.said(), row.want) {
				t.Fatalf("exit code %d, said:\n%s", code, p.said())
			}
		})
	}
}

func TestSeparateProcessesOverASeparateNATSServer(t *testing.T) {
	server := start(t, tool(t, "nats-server"), "-js", "-a", "127.0.0.1", "-p", "-1", "-sd", t.TempDir())
	url := "nats://" + server.says(`Listening for client connections on (127\.0\.0\.1:\d+)`)
	gateway := dianchao(t, "gateway", "--nats="+url, "--listen=cjt188=127.0.0.1:0")
	address := gateway.says(`cjt188=(127\.0\.0\.1:\d+)`)
	edge := dianchao(t, "edge", "--nats="+url, "--http=127.0.0.1:0")
	console := edge.says(`(http://127\.0\.0\.1:\d+)`)
	town := dianchao(t, "simulator", "--gateway="+address, "--simulate=2x3")
	town.says("simulator is ready")
	if a := clicks(t, console, "102", "102003"); a.Meter.String() != "102003" {
		t.Fatalf("%+v", a)
	}

	// A gateway that is killed is replaced, and the concentrators find the new one.
	gateway.signal(syscall.SIGKILL)
	gateway.ends()
	dianchao(t, "gateway", "--nats="+url, "--listen=cjt188="+address).says("gateway is ready")
	clicks(t, console, "101", "101001")

	for _, p := range []*process{town, edge} {
		p.signal(syscall.SIGTERM)
		if code := p.ends(); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, p.said())
		}
	}
}

func TestAGatewayThatSleepsIsTakenForDeadAndComesBack(t *testing.T) {
	t.Parallel() // it waits for a lease to expire
	server := start(t, tool(t, "nats-server"), "-js", "-a", "127.0.0.1", "-p", "-1", "-sd", t.TempDir())
	url := "nats://" + server.says(`Listening for client connections on (127\.0\.0\.1:\d+)`)
	sleeper := dianchao(t, "gateway", "--nats="+url, "--listen=cjt188=127.0.0.1:0", "--gateway-id=sleeper")
	address := sleeper.says(`cjt188=(127\.0\.0\.1:\d+)`)
	dianchao(t, "gateway", "--nats="+url, "--listen=cjt188=127.0.0.1:0", "--gateway-id=awake").says("gateway is ready")
	dianchao(t, "simulator", "--gateway="+address, "--simulate=1x1").says("simulator is ready")
	links := start(t, tool(t, "nats"), "--server", url, "kv", "watch", "links")
	links.says(`101: .*"state":"up".*"gateway":"sleeper"`)

	sleeper.signal(syscall.SIGSTOP)
	links.says(`101: .*"state":"down".*its gateway sleeper stopped answering`)
	sleeper.signal(syscall.SIGCONT)
	links.says(`(?s)stopped answering.*101: [^\n]*"state":"up"[^\n]*"gateway":"sleeper"`)
	eventually(t, "101001 is read again", func() bool {
		out, _ := cli(t, url, "req", "--raw", "meter.read.101", `{"meter":"101001"}`)
		return strings.Contains(out, `"stage":"done"`)
	})
}

// cli runs the real NATS CLI.
func cli(t *testing.T, url string, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, tool(t, "nats"), append([]string{"--server", url}, args...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // that it failed shows in what it printed
	return out.String(), errs.String()
}

func TestTheNATSCLI(t *testing.T) {
	p := dianchao(t, append([]string{"standalone"}, freePorts...)...)
	url := p.says(natsLine)
	p.says("Ctrl-C stops it")

	watch := start(t, tool(t, "nats"), "--server", url, "sub", "meter.>")
	watch.says("Subscribing on meter.>")

	out, errs := cli(t, url, "req", "--raw", "meter.read.101", `{"meter":"101001"}`)
	var a meter.Answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Stage != meter.StageDone || a.Meter.String() != "101001" {
		t.Fatalf("printed %q %q: %v", out, errs, err)
	}
	watch.says(`Received on "meter.read.101"`)
	watch.says(`Received on "meter.reading.101"`)

	if out, errs := cli(t, url, "req", "--raw", "meter.read.999", `{"meter":"999001"}`); !strings.Contains(out, `"code":"concentrator_offline"`) {
		t.Fatalf("an offline concentrator: %q %q", out, errs)
	}

	for _, row := range []struct{ name, body, want string }{
		{"no JSON", `read 101001`, "JSON"},
		{"no meter", `{}`, `"meter"`},
		{"an illegal address", `{"meter":"101.001"}`, "101.001"},
		{"a field of the wrong type", `{"meter":"101001","timeout_ms":"soon"}`, "timeout_ms"},
		{"a timeout out of bounds", `{"meter":"101001","timeout_ms":-1}`, "timeout_ms"},
		{"too large", `{"meter":"101001","x":"` + strings.Repeat("x", 5000) + `"}`, "4096"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, errs := cli(t, url, "req", "--raw", "meter.read.101", row.body)
			var a meter.Answer
			if err := json.Unmarshal([]byte(out), &a); err != nil || a.Error == nil || a.Error.Code != meter.CodeBadCommand || !strings.Contains(a.Error.Message, row.want) {
				t.Fatalf("printed %q %q", out, errs)
			}
		})
	}
}
