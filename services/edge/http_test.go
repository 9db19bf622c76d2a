package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/pkg/meter"
)

// These tests follow docs/browser.md, "HTTP".

// do sends a request; its connection is not kept.
func (n node) do(t *testing.T, method, path, body string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func (n node) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return bodyOf(t, n.do(t, http.MethodGet, path, "", nil))
}

func bodyOf(t *testing.T, r *http.Response) (int, string) {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, strings.TrimSpace(string(b))
}

func TestPostReadWaitsForTheAnswer(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		if r.Stages {
			t.Errorf("the command is %s", r.message.Data)
		}
		answerAll(r)
	})
	for _, row := range []struct{ name, body, id string }{
		{"with an id", `{"id":"a","concentrator":"101","meter":"101001","stages":true}`, "a"},
		{"without", `{"concentrator":"101","meter":"101001"}`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			response := n.do(t, http.MethodPost, "/v1/reads", row.body, nil)
			status, body := bodyOf(t, response)
			var a meter.Answer
			if err := json.Unmarshal([]byte(body), &a); err != nil {
				t.Fatal(err)
			}
			if status != 200 || response.Header.Get("Content-Type") != "application/json" || a.Stage != meter.StageDone ||
				a.Reading.Volume.String() != "101001.50" || a.ID.IsZero() || row.id != "" && a.ID.String() != row.id {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestPostReadHasAStatusForEveryCode(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	byMeter := map[string]meter.Code{}
	connectPeer(t, s.URL()).hold("101", func(r request) { r.fail(byMeter[r.Meter.String()], "no") })
	want := map[string]int{
		"bad_command": 400, "concentrator_offline": 404, "cancelled": 409,
		"rate_limited": 429, "too_many_commands": 429, "busy": 429,
		"internal": 500, "meter_refused": 502, "bad_answer": 502, "link_lost": 502,
		"draining": 503, "meter_silent": 504, "expired": 504,
	}
	for _, code := range meter.Codes() {
		t.Run(code.String(), func(t *testing.T) {
			m := fmt.Sprint(int(code))
			byMeter[m] = code
			status, body := bodyOf(t, n.do(t, http.MethodPost, "/v1/reads", `{"concentrator":"101","meter":"`+m+`"}`, nil))
			if status != want[code.String()] || !strings.Contains(body, `"code":"`+code.String()+`"`) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestPostReadThatIsRefused(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	for _, row := range []struct {
		name, method, body string
		status             int
		words              string
	}{
		{"nobody holds the concentrator", http.MethodPost, `{"id":"a","concentrator":"404","meter":"1"}`, 404, "concentrator 404 is offline"},
		{"no JSON", http.MethodPost, `meter=1`, 400, "JSON object"},
		{"no body", http.MethodPost, ``, 400, "JSON object"},
		{"no concentrator", http.MethodPost, `{"id":"a","meter":"1"}`, 400, `\"concentrator\" is missing`},
		{"illegal meter", http.MethodPost, `{"id":"a","concentrator":"101","meter":"1 2"}`, 400, "1 2"},
		{"too large", http.MethodPost, strings.Repeat(" ", 4097), 413, "4096 bytes"},
		{"another method", http.MethodGet, ``, 405, "/v1/reads takes POST, not GET"},
	} {
		for _, accept := range []string{"application/json", "text/event-stream"} {
			if row.status == 404 && accept == "text/event-stream" {
				continue // that one was sent, so its stream has begun
			}
			t.Run(row.name+" "+accept, func(t *testing.T) {
				status, body := bodyOf(t, n.do(t, row.method, "/v1/reads", row.body, http.Header{"Accept": {accept}}))
				if status != row.status || !strings.Contains(body, row.words) {
					t.Errorf("%d %s, want %d with %q", status, body, row.status, row.words)
				}
				var a meter.Answer
				if err := json.Unmarshal([]byte(body), &a); err != nil || a.Error == nil {
					t.Errorf("%s is no answer: %v", body, err)
				}
			})
		}
	}
}

func TestPostReadAsAStream(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	sent := make(chan request, 1)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		if !r.Stages {
			t.Errorf("the command is %s", r.message.Data)
		}
		r.tell(meter.StageAccepted, "\n \"spaced\": 1")
		sent <- r
	})
	response := n.do(t, http.MethodPost, "/v1/reads", `{"id":"a","concentrator":"101","meter":"101001"}`, http.Header{"Accept": {"text/event-stream"}})
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", response.Status, response.Header)
	}
	lines := bufio.NewScanner(response.Body)
	event := func() (kind, body string) {
		t.Helper()
		var got []string
		for lines.Scan() && lines.Text() != "" {
			got = append(got, lines.Text())
		}
		if len(got) != 2 {
			t.Fatalf("the event is %q", got)
		}
		return strings.TrimPrefix(got[0], "event: "), strings.TrimPrefix(got[1], "data: ")
	}
	// The first stage is here before the answer is there.
	if kind, body := event(); kind != "accepted" || !strings.HasSuffix(body, `"stage":"accepted","gateway":"gw-1","spaced":1}`) {
		t.Errorf("%s: %s", kind, body)
	}
	r := <-sent
	r.tell(meter.StageSent, "")
	answerAll(r)
	if kind, _ := event(); kind != "sent" {
		t.Errorf("the second event is %s", kind)
	}
	if kind, body := event(); kind != "done" || !json.Valid([]byte(body)) {
		t.Errorf("%s: %s", kind, body)
	}
	if lines.Scan() {
		t.Errorf("after the answer: %q", lines.Text())
	}
}

func TestHTTPClientThatLeavesIsForgotten(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	taken := make(chan request, 1)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL()+"/v1/reads", strings.NewReader(`{"concentrator":"101","meter":"101001"}`))
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := http.DefaultClient.Do(r)
		failed <- err
	}()
	answerLater := <-taken
	leave()
	if err := <-failed; err == nil {
		t.Fatal("the request was answered")
	}
	until(t, "its session is gone", func() bool { return len(n.roster.all()) == 0 })
	answerAll(answerLater)
	until(t, "the answer was dropped", func() bool { return n.late.Load() == 1 })
}

func TestMaxSessions(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), func(c *Config) { c.MaxSessions = 1 })
	c := n.session(t)
	conn, response, err := websocket.Dial(t.Context(), strings.Replace(n.URL(), "http", "ws", 1), nil)
	if err == nil {
		conn.CloseNow()
		t.Fatal("a second session was let in")
	}
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Errorf("the answer is %s %v", response.Status, response.Header)
	}
	status, body := bodyOf(t, n.do(t, http.MethodPost, "/v1/reads", `{"concentrator":"101","meter":"1"}`, nil))
	if status != 503 || !strings.Contains(body, "1 sessions, which is its limit") {
		t.Errorf("%d %s", status, body)
	}
	c.conn.CloseNow()
	until(t, "there is room again", func() bool { return len(n.roster.all()) == 0 })
	n.session(t)
}

func TestOrigins(t *testing.T) {
	s := embedNATS(t)
	for _, row := range []struct {
		name, origins, from string
		let                 bool
	}{
		{"any by default", "*", "http://elsewhere.example", true},
		{"named", "pages.example", "https://pages.example", true},
		{"by pattern", "*.water.example", "https://pages.water.example", true},
		{"not named", "pages.example", "https://elsewhere.example", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := startEdge(t, s.URL(), func(c *Config) { c.Origins = []string{row.origins} })
			conn, response, err := websocket.Dial(t.Context(), strings.Replace(n.URL(), "http", "ws", 1),
				&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {row.from}}})
			if err == nil {
				conn.CloseNow()
			}
			if (err == nil) != row.let || !row.let && response.StatusCode != http.StatusForbidden {
				t.Errorf("let in: %v (%v)", err == nil, err)
			}
		})
	}
}

func TestLinksAndMetersAsJSON(t *testing.T) {
	s := embedNATS(t)
	listed := make([]ListedMeter, 0, 1200)
	for i := range 1200 {
		rows, err := parseMeters(fmt.Appendf(nil, "%d,%d,水表 %d\n", 101+i%2, 101001+i, i))
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, rows...)
	}
	n := startEdge(t, s.URL(), func(c *Config) { c.Directory = listed })
	p := connectPeer(t, s.URL())
	if status, body := n.get(t, "/v1/concentrators"); status != 200 || body != `{"links":[]}` {
		t.Errorf("%d %s", status, body)
	}
	since := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	p.post(p.link("102", meter.LinkUp, since))
	p.post(p.link("101", meter.LinkDown, since))
	until(t, "both are known", func() bool { return len(n.board.all()) == 2 })
	want := `{"links":[{"concentrator":"101","state":"down","since":"2026-11-22T08:00:00Z","gateway":"gw-1","driver":"cjt188"},` +
		`{"concentrator":"102","state":"up","since":"2026-11-22T08:00:00Z","gateway":"gw-1","driver":"cjt188"}]}`
	if status, body := n.get(t, "/v1/concentrators"); status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}

	for _, row := range []struct {
		query         string
		status        int
		listed, total int
	}{
		{"", 200, 1000, 1200},
		{"?concentrator=101", 200, 600, 600},
		{"?concentrator=404", 200, 0, 0},
		{"?concentrator=1.1", 400, 0, 0},
	} {
		status, body := n.get(t, "/v1/meters"+row.query)
		var got struct {
			Meters []ListedMeter
			Total  int
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if status != row.status || len(got.Meters) != row.listed || got.Total != row.total {
			t.Errorf("%q: %d, %d listed of %d", row.query, status, len(got.Meters), got.Total)
		}
	}
	if _, body := n.get(t, "/v1/meters?concentrator=102"); !strings.HasPrefix(body, `{"meters":[{"concentrator":"102","meter":"101002","name":"水表 1"},`) {
		t.Errorf("%.200s", body)
	}
}

func TestConsoleAndProbes(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	for _, row := range []struct {
		method, path, kind string
		status             int
	}{
		{http.MethodGet, "/", "text/html; charset=utf-8", 200},
		{http.MethodGet, "/index.html", "text/html; charset=utf-8", 200},
		{http.MethodHead, "/", "text/html; charset=utf-8", 200},
		{http.MethodGet, "/dianchao.js", "text/javascript; charset=utf-8", 200},
		{http.MethodGet, "/web.go", "application/json", 404},
		{http.MethodGet, "/nothing", "application/json", 404},
		{http.MethodPost, "/", "application/json", 405},
		{http.MethodPost, "/v1/concentrators", "application/json", 405},
		{http.MethodGet, "/healthz", "application/json", 200},
		{http.MethodGet, "/readyz", "application/json", 200},
	} {
		t.Run(row.method+" "+row.path, func(t *testing.T) {
			response := n.do(t, row.method, row.path, "", nil)
			if response.StatusCode != row.status || response.Header.Get("Content-Type") != row.kind ||
				response.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %v", response.Status, response.Header)
			}
		})
	}
	first := n.do(t, http.MethodGet, "/", "", nil)
	if !strings.Contains(first.Header.Get("Content-Security-Policy"), "default-src 'self'") || first.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("headers %v", first.Header)
	}
	again := n.do(t, http.MethodGet, "/", "", http.Header{"If-None-Match": {first.Header.Get("ETag")}})
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("the same file again: %s", again.Status)
	}
}
