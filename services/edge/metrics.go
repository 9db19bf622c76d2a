package edge

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// dialect is how a session talks to us.
type dialect uint8

const (
	dialectV1 dialect = iota
	dialectClickToCopy
	dialectHTTP
	dialects // how many there are
)

var dialectNames = [dialects]string{subprotocol, "clicktocopy", "http"}

// Outcomes of a command beside the codes of the contract.
const (
	outcomeDone    = "done"
	outcomeLeft    = "left"    // who asked did not wait
	outcomeUnknown = "unknown" // a code of a newer gateway
)

// metrics is what a node counts. Everything that a command touches is made beforehand, so that counting is an atomic
// addition; no label names a concentrator, a meter or a session.
type metrics struct {
	sessions    [dialects]prometheus.Gauge
	commands    [dialects]map[string]prometheus.Counter // by outcome
	done        prometheus.Observer                     // seconds
	failed      prometheus.Observer
	outstanding prometheus.Gauge
	reasks      prometheus.Counter
	dropped     map[websocket.StatusCode]prometheus.Counter
	refused     map[meter.Code]prometheus.Counter
}

// commandSeconds reach from an answer that is remembered to meter.MaxTimeout.
var commandSeconds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120}

// newMetrics registers e's metrics; r nil keeps them to ourselves.
func newMetrics(e *Edge, r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	var m metrics
	sessions := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "dianchao_edge_sessions", Help: "WebSockets, and HTTP reads that wait.",
	}, []string{"protocol"})
	commands := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dianchao_edge_commands_total", Help: "Commands that ended, by how: done, left (who asked did not wait), or the error code.",
	}, []string{"protocol", "outcome"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dianchao_edge_command_seconds", Help: "From the client's message to the answer, of commands that were sent off.", Buckets: commandSeconds,
	}, []string{"result"})
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dianchao_edge_sessions_dropped_total", Help: "WebSockets that this node closed.",
	}, []string{"reason"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dianchao_edge_sessions_refused_total", Help: "Sessions that this node did not take.",
	}, []string{"reason"})
	m.outstanding = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dianchao_edge_commands_outstanding", Help: "Commands that wait for their answer.",
	})
	m.reasks = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dianchao_edge_reasks_total", Help: "Commands published again because no gateway had answered.",
	})
	for d, name := range dialectNames {
		m.sessions[d] = sessions.WithLabelValues(name)
		m.commands[d] = make(map[string]prometheus.Counter)
		for _, outcome := range outcomes() {
			m.commands[d][outcome] = commands.WithLabelValues(name, outcome)
		}
	}
	m.done, m.failed = seconds.WithLabelValues("done"), seconds.WithLabelValues("failed")
	m.dropped = map[websocket.StatusCode]prometheus.Counter{
		closeTooSlow:                  dropped.WithLabelValues("too_slow"),
		closeSilent:                   dropped.WithLabelValues("silent"),
		closeUnsupported:              dropped.WithLabelValues("unsupported"),
		websocket.StatusMessageTooBig: dropped.WithLabelValues("message_too_big"),
		closeDrained:                  dropped.WithLabelValues("drained"),
	}
	m.dropped[websocket.StatusGoingAway] = m.dropped[closeDrained] // the same in the dialect that has no word for it
	m.refused = map[meter.Code]prometheus.Counter{
		meter.CodeTooManyCommands: refused.WithLabelValues("full"),
		meter.CodeDraining:        refused.WithLabelValues("draining"),
	}
	for _, c := range append(e.observed(), sessions, commands, seconds, dropped, refused, m.outstanding, m.reasks) {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// observed is what is looked at when somebody asks.
func (e *Edge) observed() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dianchao_edge_late_answers_total", Help: "Answers of gateways that nobody waited for any more.",
		}, func() float64 { return float64(e.late.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dianchao_edge_failures_unlogged_total", Help: "Failed commands without a log line of their own, because there were too many.",
		}, func() float64 { return float64(e.failures.Unlogged()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dianchao_edge_nats_reconnects_total", Help: "How often the connection to NATS was lost and came back.",
		}, func() float64 {
			if !e.isReady() {
				return 0
			}
			return float64(e.nc.Stats().Reconnects)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dianchao_edge_nats_connected", Help: "1 while the connection to NATS stands.",
		}, func() float64 { return asNumber(e.isReady() && e.connected()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dianchao_edge_draining", Help: "1 once this node is about to leave.",
		}, func() float64 { return asNumber(e.isDraining()) }),
	}
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func outcomes() []string {
	all := []string{outcomeDone, outcomeLeft, outcomeUnknown}
	for _, c := range meter.Codes() {
		all = append(all, c.String())
	}
	return all
}

// isReady says that what Run sets up can be looked at.
func (e *Edge) isReady() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// Able returns why this node cannot read meters now, nil if it can.
func (e *Edge) Able() error {
	switch {
	case !e.isReady():
		return errors.New("the edge is starting")
	case e.isDraining():
		return errDraining
	case !e.connected():
		return errCutOff
	}
	return nil
}

// refuse notes a command that was not sent off.
func (s *session) refuse(r read, why *meter.Error) {
	s.edge.metrics.commands[s.dialect][why.Code.String()].Inc()
	s.edge.failures.Add(telemetry.Failure{ID: r.Command.ID, Concentrator: r.Concentrator, Meter: r.Command.Meter, Code: why.Code, Message: why.Message})
}

// admitted notes that a command is outstanding from now on.
func (c *command) admitted() {
	c.session.edge.metrics.outstanding.Inc()
	c.beginSpan()
}

// ended notes the terminal answer of a command that was outstanding.
func (c *command) ended(stage meter.Stage, answer []byte) {
	if stage == meter.StageDone {
		c.count(outcomeDone, c.session.edge.metrics.done)
		return
	}
	var said struct {
		Gateway string `json:"gateway"`
		Error   struct {
			Code    string `json:"code"` // perhaps one of a newer gateway
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(answer, &said) // what it does not say stays empty, and is unknown
	var code meter.Code
	outcome := said.Error.Code
	if code.UnmarshalText([]byte(outcome)) != nil {
		said.Error.Message = outcome + ": " + said.Error.Message
		outcome = outcomeUnknown
	}
	c.count(outcome, c.session.edge.metrics.failed)
	c.session.edge.failures.Add(telemetry.Failure{
		ID: c.Command.ID, Concentrator: c.Concentrator, Meter: c.Command.Meter,
		Code: code, Message: said.Error.Message, Gateway: said.Gateway,
	})
}

// left notes that nobody waits for the answer any more.
func (c *command) left() { c.count(outcomeLeft, nil) }

func (c *command) count(outcome string, took prometheus.Observer) {
	m := c.session.edge.metrics
	m.outstanding.Dec()
	m.commands[c.session.dialect][outcome].Inc()
	if took != nil {
		began := c.deadline.Add(-c.Command.Timeout)
		took.Observe(time.Since(began).Seconds())
	}
	c.endSpan(outcome)
}

// countDropped notes why this node closed a WebSocket.
func (m *metrics) countDropped(code websocket.StatusCode) {
	if c, ok := m.dropped[code]; ok {
		c.Inc()
	}
}

// countRefused notes why this node did not take a session.
func (m *metrics) countRefused(why *meter.Error) {
	if c, ok := m.refused[why.Code]; ok {
		c.Inc()
	}
}
