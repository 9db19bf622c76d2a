//go:build composed

package composed

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// monitored holds the files of deploy/observability to what a real Prometheus makes of them, once the system has been
// through its failures: everything is scraped, every alert rule can be evaluated, every panel of the dashboard has data.
func monitored(t *testing.T, s *system) {
	want := map[string]int{"dianchao-edge": s.edges, "dianchao-gateway": 2, "dianchao-simulator": 1, "dianchao-haproxy": 1}
	s.eventually(t, "Prometheus scrapes everything", func(ctx context.Context) string {
		var told struct {
			Data struct {
				ActiveTargets []struct {
					Labels    map[string]string
					Health    string
					LastError string
				}
			}
		}
		if err := ask(ctx, "targets", nil, &told); err != nil {
			return err.Error()
		}
		have := make(map[string]int)
		for _, target := range told.Data.ActiveTargets {
			if target.Health != "up" {
				return fmt.Sprint(target.Labels, target.Health, target.LastError)
			}
			have[target.Labels["job"]]++
		}
		if !maps.Equal(have, want) {
			return fmt.Sprintf("it scrapes %v, not %v", have, want)
		}
		return ""
	})

	var told struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := ask(t.Context(), "rules", nil, &told); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, g := range told.Data.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" {
				t.Errorf("the alert %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	queries := 0
	for title, expression := range dashboard(t, s.root) {
		queries++
		var told struct {
			Data struct{ Result []json.RawMessage }
		}
		query := strings.ReplaceAll(expression, "$__rate_interval", "1m")
		if err := ask(t.Context(), "query", url.Values{"query": {query}}, &told); err != nil {
			t.Errorf("the panel %q asks %s: %v", title, expression, err)
		} else if len(told.Data.Result) == 0 && !strings.HasSuffix(expression, "> 0") {
			t.Errorf("the panel %q has no data: %s", title, expression)
		}
	}
	if rules == 0 || queries == 0 {
		t.Errorf("there are %d rules and %d queries", rules, queries)
	}
}

// dashboard returns the title and the expression of every query of the Grafana dashboard.
func dashboard(t *testing.T, root string) func(yield func(string, string) bool) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy/observability/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, string) bool) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				if !yield(p.Title, target.Expr) {
					return
				}
			}
		}
	}
}

// ask puts a question to Prometheus' HTTP API.
func ask(ctx context.Context, what string, parameters url.Values, told any) error {
	return get(ctx, fmt.Sprintf("http://127.0.0.1:%d/api/v1/%s?%s", prometheusPort, what, parameters.Encode()), told)
}
