package gateway

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/gateway/scheduler"
)

// command is a scheduler's command with everybody who asked for it by its id.
type command struct {
	scheduler.Command
	gateway *Gateway
	totals  *driverMetrics
	traced  *traced

	mu     sync.Mutex
	askers []asker
	last   *meter.Answer // the latest stage, for who asks again
}

type asker struct {
	reply  string // NATS subject; "" if nobody listens
	stages bool
}

// dispatch hands the commands of all links to their buses. It never waits for one.
func (g *Gateway) dispatch(ctx context.Context) {
	for {
		select {
		case m := <-g.commands:
			g.command(m)
		case <-ctx.Done():
			return
		}
	}
}

// command answers m, or gives it to a bus that will.
func (g *Gateway) command(m *nats.Msg) {
	now := time.Now()
	wish, err := meter.ParseCommand(m.Data)
	concentrator, subjectErr := meter.ConcentratorOf(m.Subject)
	refuse := func(err error) { g.refuse(m, concentrator, err) }
	if err == nil {
		err = subjectErr
	}
	deadline := now.Add(wish.Timeout)
	if err == nil {
		deadline, err = deadlineOf(m, deadline, now)
	}
	if err != nil {
		refuse(err)
		return
	}
	l := g.holder(concentrator)
	if l == nil && g.forward(concentrator, m) {
		return
	}
	if l == nil {
		g.sentinel.wait(m, concentrator) // it went down just now
		return
	}
	canonical, err := l.driver.Canonical(wish.Meter)
	if err != nil {
		refuse(err)
		return
	}
	c := &command{gateway: g, totals: g.metrics.of(l.driver), askers: []asker{{m.Reply, wish.Stages}}}
	c.Command = scheduler.Command{
		ID: wish.ID, Target: scheduler.Target{Concentrator: concentrator, Meter: canonical}, Asked: wish.Meter, Lane: wish.Lane,
		Arrived: now, Deadline: deadline, MaxAge: wish.MaxAge, Owner: c, Emit: c.emit,
	}
	if wish.ID.IsZero() {
		c.ID, _ = meter.ParseCommandID(uuid.NewString())
	} else if known, ok := g.memory.begin(c); ok {
		if known.Target != c.Target {
			refuse(meter.Errorf(meter.CodeBadCommand, "the command id %s belongs to a read of meter %s; every read needs its own id", wish.ID, known.Asked))
			return
		}
		known.join(c.askers[0])
		return
	}
	c.traced = g.trace(m, c)
	if !l.submit(c) { // it went down just now
		g.memory.drop(c)
		c.traced.handOver(nats.Header{})
		g.sentinel.wait(m, concentrator)
	}
}

// refuse answers a command that no bus gets to see.
func (g *Gateway) refuse(m *nats.Msg, c meter.ConcentratorID, err error) {
	wish, _ := meter.ParseCommand(m.Data) // as much of it as can be read
	a := meter.Answer{
		ID: wish.ID, Concentrator: c, Meter: wish.Meter, Gateway: g.id,
		Stage: meter.StageFailed, At: time.Now().UTC().Truncate(time.Millisecond), Error: meter.AsError(err),
	}
	g.countRefusal(m, a)
	g.send(m.Reply, a)
}

// forward sends a command that came just after its concentrator had moved on to the gateway that holds it now.
func (g *Gateway) forward(c meter.ConcentratorID, m *nats.Msg) bool {
	return g.heldElsewhere([]meter.ConcentratorID{c}) && g.pass(m)
}

// headerPassed counts how often gateways have sent a command on.
const (
	headerPassed = "Dianchao-Passed"
	mostPassed   = 5
)

// pass publishes a command once more as it came. False if that was done too often, or NATS does not take it.
func (g *Gateway) pass(m *nats.Msg) bool {
	passed, _ := strconv.Atoi(m.Header.Get(headerPassed)) // 0 if there is none
	if passed >= mostPassed {
		return false
	}
	again := &nats.Msg{Subject: m.Subject, Reply: m.Reply, Data: m.Data, Header: nats.Header{}}
	maps.Copy(again.Header, m.Header)
	again.Header.Set(headerPassed, strconv.Itoa(passed+1))
	return g.nc.PublishMsg(again) == nil
}

// deadlineOf returns m's absolute deadline: its header's, or else otherwise.
func deadlineOf(m *nats.Msg, otherwise, now time.Time) (time.Time, error) {
	header := m.Header.Get(meter.HeaderDeadline)
	if header == "" {
		return otherwise, nil
	}
	deadline, err := meter.ParseDeadline(header)
	if err == nil && deadline.After(now.Add(2*meter.MaxTimeout)) {
		err = meter.Errorf(meter.CodeBadCommand, "the deadline %s is too far ahead; do the clocks of the machines agree?", deadline.UTC().Format(time.RFC3339))
	}
	return deadline, err
}

// emit tells every asker a stage. It is called under the link's lock, in the order of the stages.
func (c *command) emit(a meter.Answer) {
	a.Gateway = c.gateway.id
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = &a
	c.traced.stage(a)
	for _, k := range c.askers {
		c.tell(k, a)
	}
	if a.Stage.Terminal() {
		c.ended(a)
		c.gateway.memory.end(c)
	}
}

// join adds an asker and tells it how far the command is.
func (c *command) join(k asker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.askers, k) { // else it has heard nothing for a while, and asks again
		c.askers = append(c.askers, k)
	}
	if len(c.askers) > maxAskers {
		c.askers = c.askers[1:]
	}
	if c.last != nil {
		c.tell(k, *c.last)
	}
}

// maxAskers bounds who is told about one command; of many connections that asked again only the newest live.
const maxAskers = 8

func (c *command) tell(k asker, a meter.Answer) {
	if k.stages || a.Stage.Terminal() {
		c.gateway.send(k.reply, a)
	}
}

func (g *Gateway) send(reply string, a meter.Answer) {
	if reply == "" {
		return // nats pub without --reply: read, and tell nobody
	}
	b, err := json.Marshal(a)
	if err == nil {
		err = g.nc.Publish(reply, b)
	}
	if err != nil {
		g.log.Error("an answer could not be published", "id", a.ID, "concentrator", a.Concentrator, "meter", a.Meter, "err", err)
	}
}
