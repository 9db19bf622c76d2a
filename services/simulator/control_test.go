package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func ask(t *testing.T, method, url string, into any) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%s is not JSON: %v", body, err)
	}
	return response.StatusCode
}

type shown struct {
	Concentrator, Link, Error string
	Plugged                   bool
	Frames                    map[string]int
}

func TestControl(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{2, 20}, Control: "127.0.0.1:0"})
	waitReady(t, s)
	base := "http://" + s.ControlAddr() + "/concentrators"
	links := make(map[string]*testLink)
	for range 2 {
		l := g.login()
		links[l.concentrator.String()] = l
	}
	links["101"].read("101007")
	links["101"].read("101007")

	var list []shown
	if status := ask(t, "GET", base, &list); status != http.StatusOK || len(list) != 2 {
		t.Fatalf("status %d, %+v", status, list)
	}
	if got := fmt.Sprintf("%+v", list); got != "[{Concentrator:101 Link:up Error: Plugged:true Frames:map[101007:2]} {Concentrator:102 Link:up Error: Plugged:true Frames:map[]}]" {
		t.Error(got)
	}
	for _, row := range []struct {
		name, method, path string
		status             int
		want               string
	}{
		{"unplug", "POST", "/101/unplug", 200, "{Concentrator:101 Link:down Error: Plugged:false Frames:map[101007:2]}"},
		{"unplug again", "POST", "/101/unplug", 200, "{Concentrator:101 Link:down Error: Plugged:false Frames:map[101007:2]}"},
		{"plug", "POST", "/101/plug", 200, ""},
		{"unknown", "POST", "/999/plug", 404, "{Concentrator: Link: Error:the simulated town 2x20 has no concentrator 999, its concentrators start at 101 Plugged:false Frames:map[]}"},
		{"illegal", "POST", "/1.1/plug", 404, `{Concentrator: Link: Error:bad_command: concentrator number "1.1" may hold only letters, digits, '-' and '_' Plugged:false Frames:map[]}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got shown
			if status := ask(t, row.method, base+row.path, &got); status != row.status {
				t.Errorf("status %d, want %d", status, row.status)
			}
			if text := fmt.Sprintf("%+v", got); row.want != "" && text != row.want {
				t.Errorf("got %s, want %s", text, row.want)
			}
		})
	}
	links["101"].ended()
	if l := g.login(); l.concentrator.String() != "101" {
		t.Errorf("%s came back, want 101", l.concentrator)
	}
}

func TestControlRefusesPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{1, 1}, Control: "127.0.0.1:0"})
	waitReady(t, s)
	request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.ControlAddr()+"/concentrators/101/unplug", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	request.Header.Set("Origin", "http://elsewhere.example")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want 403", response.StatusCode)
	}
}

func TestControlPortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := New(Config{Control: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("error %v, want one that names %s", err, taken.Addr())
	}
}
