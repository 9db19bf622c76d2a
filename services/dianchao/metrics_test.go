package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

// leavesNothing fails the test if a goroutine outlives what it starts.
func leavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, before)
	})
}

// scrape returns every series of ours, as Prometheus sees them, with its value.
func scrape(t *testing.T, s *standalone) map[string]string {
	t.Helper()
	r, err := http.Get("http://" + s.telemetry.Address() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("/metrics says %s", r.Status)
	}
	all := make(map[string]string)
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "dianchao_") {
			series, value, _ := strings.Cut(lines.Text(), " ")
			all[series] = value
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMetricsTellOfAReadAnOfflineReadAndALateAnswer(t *testing.T) {
	leavesNothing(t)
	s := boot(t, func(c *standaloneCommand) {
		c.Telemetry.Metrics = "127.0.0.1:0"
		c.Gateway.Drivers.CJT188.ResponseTimeout = 300 * time.Millisecond
	})
	before := scrape(t, s)

	conn, err := net.Dial("tcp", s.gateway.Address("cjt188"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "LOGIN:301"); err != nil {
		t.Fatal(err)
	}
	online(t, s, "301")
	for i := range 20 { // many meters and concentrators, to see that they make no series
		address := fmt.Sprintf("10%d0%02d", 1+i%3, 1+i)
		if a := read(t, s, fmt.Sprintf(`{"concentrator":%q,"meter":%q}`, address[:3], address)); a.Error != nil {
			t.Fatalf("%s: %v", address, a.Error)
		}
		if a := read(t, s, fmt.Sprintf(`{"concentrator":"9%02d","meter":"1"}`, i)); a.Error == nil || a.Error.Code != meter.CodeConcentratorOffline {
			t.Fatalf("%+v", a)
		}
	}
	if a := read(t, s, `{"concentrator":"301","meter":"1"}`); a.Error == nil || a.Error.Code != meter.CodeMeterSilent {
		t.Fatalf("%+v", a)
	}
	frame := make([]byte, 18) // two FE and a request of 16 bytes
	if _, err := io.ReadFull(conn, frame); err != nil {
		t.Fatal(err)
	}
	volume := meter.NewDecimal(100, 2)
	answer := must(must(cjt188.Parse(frame)).Answer(meter.Reading{Volume: &volume}))
	if _, err := conn.Write(answer.Append(nil)); err != nil {
		t.Fatal(err)
	}

	for series, want := range map[string]string{
		`dianchao_edge_commands_total{outcome="done",protocol="http"}`:         "20",
		`dianchao_edge_commands_total{outcome="meter_silent",protocol="http"}`: "1",
		`dianchao_edge_command_seconds_count{result="done"}`:                   "20",
		`dianchao_edge_commands_outstanding`:                                   "0",
		`dianchao_edge_sessions{protocol="http"}`:                              "0",
		`dianchao_edge_nats_connected`:                                         "1",
		`dianchao_gateway_links{driver="cjt188"}`:                              "4",
		`dianchao_gateway_concentrators{driver="cjt188"}`:                      "4",
		`dianchao_gateway_commands_total{driver="cjt188",outcome="done"}`:      "20",
		`dianchao_gateway_exchanges_total{driver="cjt188",result="answered"}`:  "20",
		`dianchao_gateway_exchange_seconds_count{driver="cjt188"}`:             "20",
		`dianchao_gateway_exchanges_total{driver="cjt188",result="silent"}`:    "1",
		`dianchao_gateway_late_answers_total{driver="cjt188"}`:                 "1",
		`dianchao_gateway_readings_pending`:                                    "0",
		`dianchao_gateway_queue_depth`:                                         "0",
		`dianchao_simulator_concentrators`:                                     "3",
		`dianchao_build_info{service="standalone",version="dev"}`:              "1",
	} {
		eventually(t, series+" is "+want, func() bool { return scrape(t, s)[series] == want })
	}
	offline := `dianchao_edge_commands_total{outcome="concentrator_offline",protocol="http"}`
	var n int
	if _, err := fmt.Sscan(scrape(t, s)[offline], &n); err != nil || n < 20 { // online, too, may have asked too early
		t.Errorf("%d reads were offline (%v)", n, err)
	}

	after := scrape(t, s)
	for series := range after {
		if _, known := before[series]; !known {
			t.Errorf("%s was not there before anything was read", series)
		}
	}
	bounded := []string{"protocol", "outcome", "result", "reason", "driver", "to", "service", "version", "le"}
	for series := range after {
		for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(series, -1) {
			if !slices.Contains(bounded, label[1]) {
				t.Errorf("%s has the label %s", series, label[1])
			}
		}
	}
	if r, err := http.Get("http://" + s.telemetry.Address() + "/readyz"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("%v %v", r, err)
	} else {
		r.Body.Close()
	}
}

// collect is an OTLP/HTTP collector of traces.
func collect(t *testing.T) (url string, spans func() []*otlp.Span) {
	var mu sync.Mutex
	var all []*otlp.Span
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &m)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range m.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				all = append(all, scope.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []*otlp.Span {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestOneTraceReachesFromTheClickToTheExchange(t *testing.T) {
	leavesNothing(t)
	url, spans := collect(t)
	c := parse(t, "standalone", "--http=127.0.0.1:0", "--nats=127.0.0.1:0", "--listen=cjt188=127.0.0.1:0", "--traces="+url).Standalone
	s, stop := bootStoppable(t, c)
	client := open(t, s)
	if err := client.ask("a", "101", "101001"); err != nil {
		t.Fatal(err)
	}
	if a, err := client.answer("a"); err != nil || a.Error != nil {
		t.Fatalf("%v %v", a.Error, err)
	}
	client.conn.CloseNow()
	stop() // exports what waits

	byName := make(map[string]*otlp.Span)
	for _, span := range spans() {
		byName[span.Name] = span
	}
	read, command, exchange := byName["read"], byName["command"], byName["exchange"]
	if read == nil || command == nil || exchange == nil || len(byName) != 3 {
		t.Fatalf("%v", byName)
	}
	if string(command.TraceId) != string(read.TraceId) || string(exchange.TraceId) != string(read.TraceId) {
		t.Error("they are not one trace")
	}
	if string(command.ParentSpanId) != string(read.SpanId) || string(exchange.ParentSpanId) != string(command.SpanId) || len(read.ParentSpanId) != 0 {
		t.Error("they do not hang below each other")
	}
	if len(command.Events) != 1 || command.Events[0].Name != "sent" {
		t.Errorf("%v", command.Events)
	}
	said := make(map[string]string)
	for _, a := range slices.Concat(read.Attributes, command.Attributes, exchange.Attributes) {
		said[a.Key] = a.Value.GetStringValue()
	}
	for key, want := range map[string]string{"protocol": "dianchao.v1", "driver": "cjt188", "concentrator": "101", "lane": "interactive", "source": "wire"} {
		if said[key] != want {
			t.Errorf("%s is %q, want %q", key, said[key], want)
		}
	}
}

// What Prometheus, Grafana and the operator are told of must be what the services tell.
func TestAlertsDashboardAndDocumentationNameTheMetricsThatThereAre(t *testing.T) {
	s := boot(t, func(c *standaloneCommand) { c.Telemetry.Metrics = "127.0.0.1:0" })
	there := make(map[string]bool)
	for _, family := range must(s.telemetry.Registry.Gather()) {
		there[family.GetName()] = true
	}
	docs := string(must(os.ReadFile("../../docs/metrics.md")))
	alerts := string(must(os.ReadFile("../../deploy/observability/alerts.yml")))
	dashboard := string(must(os.ReadFile("../../deploy/observability/dashboard.json")))
	if !json.Valid([]byte(dashboard)) {
		t.Error("the dashboard is no JSON")
	}
	named := regexp.MustCompile(`\b(?:dianchao|go|process)_[a-z_]*[a-z]\b`)
	histogram := regexp.MustCompile(`_(bucket|sum|count)$`)
	for file, text := range map[string]string{"alerts.yml": alerts, "dashboard.json": dashboard, "metrics.md": docs} {
		found := named.FindAllString(text, -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", file, len(found))
		}
		for _, name := range found {
			if !there[name] && !there[histogram.ReplaceAllString(name, "")] {
				t.Errorf("%s names %s, which there is not", file, name)
			}
		}
	}
	for name := range there {
		if strings.HasPrefix(name, "dianchao_") && !strings.Contains(docs, "`"+name) {
			t.Errorf("docs/metrics.md does not say what %s is", name)
		}
		if strings.HasPrefix(name, "dianchao_") && !strings.Contains(dashboard, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}

	rules := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(alerts, -1)
	explained := regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(docs, -1)
	second := func(all [][]string) (out []string) {
		for _, m := range all {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return out
	}
	if a, b := second(rules), second(explained); !slices.Equal(a, b) || len(a) == 0 {
		t.Errorf("the alerts are\n%v\nand docs/metrics.md explains\n%v", a, b)
	}

	// A label value that no series has would make an alert that never comes.
	var series strings.Builder
	for one := range scrape(t, s) {
		fmt.Fprintln(&series, one)
	}
	for _, m := range regexp.MustCompile(`(outcome|result|reason)=~?"([a-z_|]+)"`).FindAllStringSubmatch(alerts, -1) {
		for value := range strings.SplitSeq(m[2], "|") {
			if !strings.Contains(series.String(), m[1]+`="`+value+`"`) {
				t.Errorf("no series has %s=%q, which an alert looks for", m[1], value)
			}
		}
	}
}
