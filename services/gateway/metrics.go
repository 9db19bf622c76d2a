package gateway

import (
	"errors"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// metrics is what a gateway counts. No label names a concentrator, a meter or a command, and a link has no metric
// of its own: what its bus counts is added to its driver's totals when somebody asks, and when the link ends.
type metrics struct {
	gateway *Gateway
	drivers map[string]*driverMetrics // by name; read only
	refused map[string]prometheus.Counter
	all     []prometheus.Collector

	takeoversHere, takeoversElsewhere prometheus.Counter
	handedOver                        prometheus.Counter

	mu             sync.Mutex // of every holding's dropped
	dropped        prometheus.Counter
	links          *prometheus.GaugeVec
	concentrators  *prometheus.GaugeVec
	queued, queues prometheus.Gauge
}

// driverMetrics are the totals of one protocol.
type driverMetrics struct {
	name                          string
	commands                      map[string]prometheus.Counter // by outcome
	answered, silent, noise, lost prometheus.Counter            // exchanges
	seconds                       prometheus.Observer
	late, retries, skipped        prometheus.Counter
}

const (
	outcomeDone = "done"
	// noDriver stands for the driver of commands whose concentrator nobody holds.
	noDriver = "none"
)

// exchangeSeconds reach from a local bus to a radio whose meters sleep.
var exchangeSeconds = []float64{.01, .025, .05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60}

// newMetrics registers g's metrics; r nil keeps them to ourselves.
func newMetrics(g *Gateway, r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{gateway: g, drivers: make(map[string]*driverMetrics)}
	commands := m.counters("dianchao_gateway_commands_total", "Commands that ended here, by how: done, or the error code.", "driver", "outcome")
	m.refused = byOutcome(commands, noDriver)
	exchanges := m.counters("dianchao_gateway_exchanges_total", "Frames sent to meters, by what came: answered, silent, noise (bytes, no valid answer), link_lost.", "driver", "result")
	late := m.counters("dianchao_gateway_late_answers_total", "Answers of meters that came after their exchange had timed out, and were dropped.", "driver")
	retries := m.counters("dianchao_gateway_retries_total", "Exchanges repeated because of noise.", "driver")
	skipped := m.counters("dianchao_gateway_skipped_total", "Batch commands refused because their meter was silent shortly before.", "driver")
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dianchao_gateway_exchange_seconds", Help: "From a frame to the reading it brought.", Buckets: exchangeSeconds,
	}, []string{"driver"})
	m.all = append(m.all, seconds)
	for _, d := range g.config.Drivers.All() {
		n := d.Name()
		m.drivers[n] = &driverMetrics{
			name: n, commands: byOutcome(commands, n), seconds: seconds.WithLabelValues(n),
			answered: exchanges.WithLabelValues(n, "answered"), silent: exchanges.WithLabelValues(n, "silent"),
			noise: exchanges.WithLabelValues(n, "noise"), lost: exchanges.WithLabelValues(n, "link_lost"),
			late: late.WithLabelValues(n), retries: retries.WithLabelValues(n), skipped: skipped.WithLabelValues(n),
		}
	}
	takeovers := m.counters("dianchao_gateway_takeovers_total", "Links given up for a newer login of their concentrator, here or at another gateway.", "to")
	m.takeoversHere, m.takeoversElsewhere = takeovers.WithLabelValues("here"), takeovers.WithLabelValues("elsewhere")
	m.handedOver = m.counters("dianchao_gateway_handed_over_total", "Commands that followed their concentrator to its newer link.").WithLabelValues()
	m.dropped = m.counters("dianchao_gateway_dropped_commands_total", "Commands that NATS delivered faster than they were taken (slow consumer).").WithLabelValues()
	m.links = m.gauges("dianchao_gateway_links", "Connections of concentrators.", "driver")
	m.concentrators = m.gauges("dianchao_gateway_concentrators", "Concentrators whose commands come here.", "driver")
	m.queued = m.gauges("dianchao_gateway_queue_depth", "Commands that all buses hold.").WithLabelValues()
	m.queues = m.gauges("dianchao_gateway_queue_depth_max", "Commands that the fullest bus holds.").WithLabelValues()
	if err := r.Register(m); err != nil {
		return nil, err
	}
	return m, g.registerObserved(r)
}

func (m *metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.all = append(m.all, v)
	return v
}

func (m *metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.all = append(m.all, v)
	return v
}

func byOutcome(v *prometheus.CounterVec, driver string) map[string]prometheus.Counter {
	all := map[string]prometheus.Counter{outcomeDone: v.WithLabelValues(driver, outcomeDone)}
	for _, c := range meter.Codes() {
		all[c.String()] = v.WithLabelValues(driver, c.String())
	}
	return all
}

// registerObserved registers what costs nothing until somebody asks.
func (g *Gateway) registerObserved(r prometheus.Registerer) error {
	counter := func(name, help string, value func() float64) error {
		return r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	gauge := func(name, help string, value func() float64) error {
		return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	// running is value once Run has set up what value looks at.
	running := func(value func() float64) func() float64 {
		return func() float64 {
			if !g.isReady() {
				return 0
			}
			return value()
		}
	}
	return errors.Join(
		gauge("dianchao_gateway_dispatch_depth", "Commands that wait to be given to their bus.", func() float64 { return float64(len(g.commands)) }),
		gauge("dianchao_gateway_waiting_commands", "Commands whose concentrator is away, but should be back in a moment.", func() float64 { return float64(g.sentinel.held()) }),
		gauge("dianchao_gateway_readings_pending", "Readings that the stream does not have yet.", running(func() float64 { return float64(g.readings.pending.Load()) })),
		counter("dianchao_gateway_readings_lost_total", "Readings that are only in the log, because the stream was away for too long.", running(func() float64 { return float64(g.readings.lost.Load()) })),
		counter("dianchao_gateway_failures_unlogged_total", "Failed commands without a log line of their own, because there were too many.", func() float64 { return float64(g.failures.Unlogged()) }),
		counter("dianchao_gateway_nats_reconnects_total", "How often a connection to NATS was lost and came back.", running(func() float64 {
			return float64(g.nc.Stats().Reconnects + g.readings.js.Conn().Stats().Reconnects)
		})),
		gauge("dianchao_gateway_nats_connected", "1 while both connections to NATS stand.", running(func() float64 { return asNumber(g.connected()) })),
		gauge("dianchao_gateway_draining", "1 once this gateway is about to leave.", func() float64 { return asNumber(g.draining.Load()) }),
	)
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (g *Gateway) isReady() bool {
	select {
	case <-g.ready:
		return true
	default:
		return false
	}
}

func (g *Gateway) connected() bool {
	return g.nc.Status() == nats.CONNECTED && g.readings.js.Conn().Status() == nats.CONNECTED
}

// Able returns why this gateway takes no commands or concentrators now, nil if it does.
func (g *Gateway) Able() error {
	switch {
	case !g.isReady():
		return errors.New("the gateway is starting")
	case g.draining.Load():
		return errors.New("the gateway is about to leave")
	case !g.connected():
		return errors.New("the gateway is cut off from NATS")
	}
	return nil
}

// Describe and Collect make metrics a collector: links are looked at before their totals are told.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.look()
	for _, c := range m.all {
		c.Collect(ch)
	}
}

// look brings the totals up to date. It holds the gateway's lock only to copy two lists.
func (m *metrics) look() {
	g := m.gateway
	g.mu.Lock()
	links := make([]*link, 0, len(g.links))
	for l := range g.links {
		links = append(links, l)
	}
	holders := make([]*holding, 0, len(g.holders))
	for _, h := range g.holders {
		holders = append(holders, h)
	}
	g.mu.Unlock()

	open, held := make(map[string]int), make(map[string]int)
	queued, fullest := 0, 0
	for _, l := range links {
		open[l.driver.Name()]++
		n := l.look()
		queued, fullest = queued+n, max(fullest, n)
	}
	for _, h := range holders {
		held[h.link.driver.Name()]++
		m.countDrops(h)
	}
	for name := range m.drivers {
		m.links.WithLabelValues(name).Set(float64(open[name]))
		m.concentrators.WithLabelValues(name).Set(float64(held[name]))
	}
	m.queued.Set(float64(queued))
	m.queues.Set(float64(fullest))
}

// countDrops adds what NATS has dropped of a holding's subscription since the last time.
func (m *metrics) countDrops(h *holding) {
	dropped, err := h.sub.Dropped()
	if err != nil {
		return // unsubscribed, and counted before
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped.Add(float64(max(0, dropped-h.dropped)))
	h.dropped = max(h.dropped, dropped)
}

func (m *metrics) of(d driver.Driver) *driverMetrics { return m.drivers[d.Name()] }

// look adds what the bus has counted, and returns how many commands it holds.
func (l *link) look() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count()
	return l.bus.Held()
}

// count adds what the bus has counted since the last time to the driver's totals. mu is held.
func (l *link) count() {
	now, before := l.bus.Counts(), l.counted
	l.counted = now
	if now == before {
		return
	}
	d := l.gateway.metrics.of(l.driver)
	d.answered.Add(float64(now.Answered - before.Answered))
	d.silent.Add(float64(now.Silent - before.Silent))
	d.noise.Add(float64(now.Noise - before.Noise))
	d.lost.Add(float64(now.Lost - before.Lost))
	d.late.Add(float64(now.Late - before.Late))
	d.retries.Add(float64(now.Retries - before.Retries))
	d.skipped.Add(float64(now.Skipped - before.Skipped))
}

// countReading notes how long an exchange took that brought a reading.
func (l *link) countReading(a *meter.Answer) {
	l.gateway.metrics.of(l.driver).seconds.Observe(float64(a.Timing.Wire) / 1000)
}

// ended notes a command's terminal answer.
func (c *command) ended(a meter.Answer) {
	outcome := outcomeDone
	if a.Error != nil {
		outcome = a.Error.Code.String()
	}
	c.totals.commands[outcome].Inc()
	if a.Error != nil && slices.ContainsFunc(c.askers, func(k asker) bool { return !byEdge(k.reply) }) {
		c.gateway.logFailure(a)
	}
}

// countRefusal notes the answer to a command that no bus got to see.
func (g *Gateway) countRefusal(m *nats.Msg, a meter.Answer) {
	if string(m.Data) == listening {
		return // no command: a gateway asks whether we listen
	}
	g.metrics.refused[a.Error.Code.String()].Inc()
	if !byEdge(m.Reply) {
		g.logFailure(a)
	}
}

// byEdge says that an edge asked, which writes the line of a failed command itself.
func byEdge(reply string) bool {
	_, _, ok := meter.ParseReply(reply)
	return ok
}

func (g *Gateway) logFailure(a meter.Answer) {
	g.failures.Add(telemetry.Failure{ID: a.ID, Concentrator: a.Concentrator, Meter: a.Meter, Code: a.Error.Code, Message: a.Error.Message})
}

var _ prometheus.Collector = (*metrics)(nil)
