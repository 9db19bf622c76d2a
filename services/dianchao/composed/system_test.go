//go:build composed

package composed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

const (
	project       = "dianchao-failures"
	concentrators = 300
	meters        = 5
	// Ports below the range that systems give to outgoing connections: they must be free again after HAProxy's restart.
	httpPort       = 19759
	prometheusPort = 19090
)

// system is the unmodified docker-compose.yml under a project name of its own; only sizes, ports and the meters' pace are set.
type system struct {
	root  string
	edges int // how many there should be
}

var natsNodes = []string{"nats-1", "nats-2", "nats-3"}

func environment() []string {
	return append(os.Environ(),
		"COMPOSE_PROFILES=prometheus", fmt.Sprintf("PUBLISH_PROMETHEUS=127.0.0.1:%d", prometheusPort),
		fmt.Sprintf("SIMULATE=%dx%d", concentrators, meters), "SIMULATORS=1",
		fmt.Sprintf("PUBLISH_HTTP=127.0.0.1:%d", httpPort), "PUBLISH_CONCENTRATORS=127.0.0.1:19188", "PUBLISH_STATS=127.0.0.1:19404",
		"PUBLISH_NATS_1=127.0.0.1:19222", "PUBLISH_NATS_2=127.0.0.1:19223", "PUBLISH_NATS_3=127.0.0.1:19224")
}

// up brings the system up, built from this source, and takes it down with its volumes at the end of the test.
func up(t *testing.T) *system {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	s := &system{root: root, edges: 3}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Fatalf("these tests need Docker, and there is no docker command: %v", err)
	}
	s.need(t, "a Docker engine that answers", "info", "--format", "{{.ServerVersion}}")
	s.need(t, "the docker compose plugin", "compose", "version", "--short")
	s.need(t, "the docker buildx plugin", "buildx", "version")
	if !*keep {
		t.Cleanup(func() {
			if out, err := s.docker(context.Background(), 3*time.Minute, s.composed("down", "-v", "--timeout", "10")...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	s.compose(t, 10*time.Minute, "down", "-v", "--timeout", "5") // what an interrupted run left
	s.compose(t, 10*time.Minute, "build", "--quiet")
	s.scale(t, s.edges)
	return s
}

func (s *system) need(t *testing.T, what string, args ...string) {
	t.Helper()
	if out, err := s.docker(t.Context(), 20*time.Second, args...); err != nil {
		t.Fatalf("these tests need %s: docker %s: %v\n%s", what, strings.Join(args, " "), err, out)
	}
}

// docker runs the command and returns what it printed.
func (s *system) docker(ctx context.Context, within time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Dir, cmd.Env = s.root, environment()
	cmd.WaitDelay = 5 * time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return complaint.String() + out.String(), fmt.Errorf("docker %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out.String()), nil
}

func (s *system) must(t *testing.T, within time.Duration, args ...string) string {
	t.Helper()
	out, err := s.docker(t.Context(), within, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// composed are the arguments of docker for this project. Nobody's .env changes it.
func (s *system) composed(args ...string) []string {
	return append([]string{"compose", "--env-file", os.DevNull, "-p", project,
		"-f", filepath.Join(s.root, "docker-compose.yml"), "-f", filepath.Join(s.root, "services/dianchao/composed/override.yml")}, args...)
}

func (s *system) compose(t *testing.T, within time.Duration, args ...string) string {
	t.Helper()
	return s.must(t, within, s.composed(args...)...)
}

// scale brings everything up with this many edges and returns once it is healthy.
func (s *system) scale(t *testing.T, edges int) {
	t.Helper()
	s.edges = edges
	s.compose(t, 5*time.Minute, "up", "-d", "--no-build", "--no-recreate", "--scale", fmt.Sprint("edge=", edges))
	s.eventually(t, fmt.Sprintf("%d edges and all else are healthy", edges), s.unhealthy)
}

// containers of a service, the oldest number first.
func (s *system) containers(t *testing.T, service string) []string {
	t.Helper()
	names := strings.Fields(s.must(t, 20*time.Second, "ps", "-a", "--filter", "label=com.docker.compose.project="+project,
		"--filter", "label=com.docker.compose.service="+service, "--format", "{{.Names}}"))
	if len(names) == 0 {
		t.Fatalf("there is no container of %s", service)
	}
	slices.Sort(names)
	return names
}

// unhealthy names what is not as it should be, "" if nothing.
func (s *system) unhealthy(ctx context.Context) string {
	out, err := s.docker(ctx, 20*time.Second, "ps", "-a", "--filter", "label=com.docker.compose.project="+project,
		"--format", `{{.Label "com.docker.compose.service"}} {{.Names}} {{.Status}}`)
	if err != nil {
		return err.Error() + out
	}
	want := map[string]int{"nats-1": 1, "nats-2": 1, "nats-3": 1, "gateway": 2, "edge": s.edges, "haproxy": 1, "simulator": 1, "prometheus": 1}
	for line := range strings.Lines(out) {
		service, _, _ := strings.Cut(line, " ")
		if !strings.Contains(line, "(healthy)") {
			return strings.TrimSpace(line)
		}
		want[service]--
	}
	for service, missing := range want {
		if missing != 0 {
			return fmt.Sprintf("of %s there are %d too few", service, missing)
		}
	}
	by, err := s.links(ctx)
	if err != nil {
		return err.Error()
	}
	n := 0
	for _, of := range by {
		n += of
	}
	if n != concentrators {
		return fmt.Sprintf("%d of %d concentrators are up: %v", n, concentrators, by)
	}
	return ""
}

// links counts links that are up by gateway, as an edge tells them.
func (s *system) links(ctx context.Context) (map[string]int, error) {
	var told struct{ Links []meter.Link }
	if err := get(ctx, fmt.Sprintf("http://127.0.0.1:%d/v1/concentrators", httpPort), &told); err != nil {
		return nil, err
	}
	by := make(map[string]int)
	for _, l := range told.Links {
		if l.State == meter.LinkUp {
			by[l.Gateway.String()]++
		}
	}
	return by, nil
}

// get reads the JSON at url into told.
func get(ctx context.Context, url string, told any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, response.Status, b)
	}
	return json.Unmarshal(b, told)
}

// eventually returns once nothing is missing any more.
func (s *system) eventually(t *testing.T, what string, missing func(context.Context) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		m := missing(ctx)
		if m == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s; %s", what, m)
		}
	}
}

// balance has the concentrators dial in anew if one gateway holds most of them.
func (s *system) balance(t *testing.T) {
	t.Helper()
	by, err := s.links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range by {
		if n > concentrators*6/10 {
			s.must(t, time.Minute, "restart", s.containers(t, "simulator")[0])
			s.eventually(t, "the concentrators are back", s.unhealthy)
			return
		}
	}
}

// natsLeader is the service of the node that leads most: the meta group, the buckets, the stream.
func (s *system) natsLeader(t *testing.T) string {
	t.Helper()
	var told struct {
		MetaCluster struct{ Leader string } `json:"meta_cluster"`
		Accounts    []struct {
			Streams []struct {
				Name    string
				Cluster struct{ Leader string }
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	out := s.compose(t, 20*time.Second, "exec", "-T", natsNodes[0], "wget", "-q", "-O", "-", "http://127.0.0.1:8222/jsz?streams=true")
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	leads := map[string][]string{told.MetaCluster.Leader: {"the meta group"}}
	for _, a := range told.Accounts {
		for _, stream := range a.Streams {
			leads[stream.Cluster.Leader] = append(leads[stream.Cluster.Leader], stream.Name)
		}
	}
	leader := slices.MaxFunc(natsNodes, func(a, b string) int { return len(leads[a]) - len(leads[b]) })
	t.Logf("%s leads %s", leader, strings.Join(leads[leader], ", "))
	return leader
}
