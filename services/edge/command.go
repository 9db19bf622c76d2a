package edge

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/dianchao/dianchao/pkg/meter"
)

var (
	errCutOff    = meter.Errorf(meter.CodeInternal, "the edge is cut off from NATS, try again")
	errCancelled = meter.Errorf(meter.CodeCancelled, "the read was withdrawn")
)

// command is one outstanding read. What changes is guarded by its session's mu.
type command struct {
	read
	session  *session
	deadline time.Time
	reply    string     // subject of its answers
	body     []byte     // as it goes to the gateway
	span     trace.Span // nil if nobody collects traces

	heard     meter.Stage // the last stage a gateway told; zero: none did
	tries     int         // how often there was no gateway for it
	unheld    time.Time   // when that was first so
	cancelled bool
	asked     int         // how often it was published again for want of an answer
	watch     *time.Timer // looks after it while no gateway answers
	retry     *time.Timer // nil unless there was no gateway for it at the last try
}

// publish sends the command to the gateway that holds the link. While NATS has been away for no more than a moment that is
// left to askAgain.
func (e *Edge) publish(c *command) *meter.Error {
	err := e.nc.PublishMsg(&nats.Msg{
		Subject: meter.SubjectRead(c.Concentrator),
		Reply:   c.reply,
		Header:  c.header(),
		Data:    c.body,
	})
	if err == nil {
		return nil
	}
	if !e.connected() || errors.Is(err, nats.ErrReconnectBufExceeded) {
		lost, back := e.lostAt.Load(), e.backAt.Load()
		if lost <= back || time.Since(time.Unix(0, lost)) < e.pace.away { // that it is lost may not be known yet
			return nil
		}
		return errCutOff
	}
	return meter.Errorf(meter.CodeInternal, "the command could not be sent: %v", err)
}

func (e *Edge) publishCancel(c *command) error {
	body, err := json.Marshal(meter.Cancel{ID: c.Command.ID})
	if err != nil {
		return err
	}
	return e.nc.Publish(meter.SubjectCancel(c.Concentrator), body)
}

// heading is what the edge itself needs of an answer.
type heading struct {
	ID    meter.CommandID `json:"id"`
	Stage meter.Stage     `json:"stage"`
}

// onReply takes every answer for this node. NATS calls it from one goroutine, so nothing in it waits.
func (e *Edge) onReply(m *nats.Msg) {
	session, id, ok := meter.ParseReply(m.Subject)
	if !ok {
		e.log.Warn("an answer has an illegal subject", "subject", m.Subject)
		return
	}
	s := e.roster.find(session)
	if s == nil {
		e.late.Add(1)
		return
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		s.nobodyThere(id)
		return
	}
	var h heading
	if err := json.Unmarshal(m.Data, &h); err != nil || h.ID != id || h.Stage == 0 {
		e.log.Warn("an answer is none", "subject", m.Subject, "err", err, "id", h.ID.String())
		return
	}
	if !s.hear(id, h.Stage, m.Data) {
		e.late.Add(1)
	}
}

// hear passes an answer of a gateway on and reports whether somebody waited for it.
func (s *session) hear(id meter.CommandID, stage meter.Stage, answer []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.commands[id]
	if c == nil {
		return false
	}
	if stage.Terminal() {
		s.take(c)
		c.ended(stage, answer)
		s.deliver(c, stage, answer)
		return true
	}
	c.heard, c.tries = stage, 0
	if c.Command.Stages {
		s.deliver(c, stage, answer)
	}
	return true
}

// nobodyThere is called when no gateway took a command.
func (s *session) nobodyThere(id meter.CommandID) {
	s.mu.Lock()
	c := s.commands[id]
	if c == nil || c.retry != nil {
		s.mu.Unlock()
		return
	}
	if c.tries == 0 {
		c.unheld = time.Now()
	}
	wait, again := s.edge.patience(c)
	if again && !c.cancelled && time.Until(c.deadline) > wait {
		c.tries++
		c.retry = time.AfterFunc(wait, c.again)
		s.mu.Unlock()
		return
	}
	heard, cancelled := c.heard, c.cancelled
	s.mu.Unlock()
	if cancelled {
		s.fail(c, errCancelled)
		return
	}
	if heard != 0 {
		s.fail(c, meter.Errorf(meter.CodeLinkLost, "the gateway that had the read of meter %s is gone, and no other holds the link of concentrator %s yet: ask again", c.Command.Meter, c.Concentrator))
		return
	}
	s.fail(c, s.edge.offline(c.Concentrator))
}

// patience says how long to wait before a command for which there was no gateway is tried again, if it is. One new try
// is due to every command, because a link that just came up is not known everywhere at once. More are due while the link
// moves, while it is said to be up, as when its gateway died a moment ago, and while gateways look for NATS as we did.
func (e *Edge) patience(c *command) (time.Duration, bool) {
	link, _ := e.board.link(c.Concentrator)
	again := c.tries == 0 ||
		time.Since(time.Unix(0, e.backAt.Load())) < e.pace.settle ||
		link.Moving && time.Since(link.Since) < e.pace.moving ||
		link.State == meter.LinkUp && time.Since(c.unheld) < e.pace.moving
	waits := e.pace.unheld
	return waits[min(c.tries, len(waits)-1)], again
}

// again publishes the command once more, if it is still outstanding.
func (c *command) again() {
	s := c.session
	s.mu.Lock()
	live := s.commands[c.Command.ID] == c
	c.retry = nil
	s.mu.Unlock()
	if !live {
		return
	}
	if err := s.edge.publish(c); err != nil {
		s.fail(c, err)
	}
}

// look is called when a command has had no answer for a while. NATS delivers at most once: the command, or its answer,
// may have been lost when a link or a server moved, so it is published again, which the gateway recognises by its id.
// After the deadline the edge answers itself.
func (c *command) look() {
	s := c.session
	now := time.Now()
	s.mu.Lock()
	live, cancelled := s.commands[c.Command.ID] == c, c.cancelled
	over := !now.Before(c.deadline.Add(s.edge.pace.backstop))
	if live && !cancelled && !over {
		c.asked++
		c.watch.Reset(c.nextLook(now))
	}
	s.mu.Unlock()
	switch {
	case !live:
	case cancelled || over:
		c.giveUp()
	case now.Before(c.deadline):
		s.edge.metrics.reasks.Inc()
		if err := s.edge.publish(c); err != nil {
			s.edge.log.Debug("a command cannot be published again", "id", c.Command.ID.String(), "err", err)
		}
	}
}

// nextLook is how long from now until look is due again.
func (c *command) nextLook(now time.Time) time.Duration {
	end := c.deadline.Add(c.session.edge.pace.backstop).Sub(now)
	return max(0, min(end, c.session.edge.pace.reask<<min(c.asked, 1)))
}

// giveUp answers when the deadline has passed and no gateway did: it died, or its answer was lost.
func (c *command) giveUp() {
	s := c.session
	s.mu.Lock()
	heard, cancelled := c.heard, c.cancelled
	s.mu.Unlock()
	switch {
	case cancelled:
		s.fail(c, errCancelled)
	case heard != 0:
		s.fail(c, meter.Errorf(meter.CodeLinkLost, "the gateway had the read of meter %s at concentrator %s (%s) and then fell silent: ask again", c.Command.Meter, c.Concentrator, heard))
	default:
		s.fail(c, meter.Errorf(meter.CodeInternal, "no gateway answered for meter %s at concentrator %s in time: ask again", c.Command.Meter, c.Concentrator))
	}
}

// askAgain publishes everything outstanding once more, after NATS was away: answers that came meanwhile are lost, and
// the gateway gives them again to who asks with the same id.
func (e *Edge) askAgain() {
	now := time.Now()
	for _, s := range e.roster.all() {
		for _, c := range s.outstanding() {
			if c.deadline.Before(now) {
				continue
			}
			e.metrics.reasks.Inc()
			if err := e.publish(c); err != nil {
				e.log.Debug("NATS is away again", "err", err)
				return
			}
		}
	}
}

// offline says that nobody holds a concentrator's link, since when if that is known, and what to do next.
func (e *Edge) offline(c meter.ConcentratorID) *meter.Error {
	link, _ := e.board.link(c)
	return link.Offline(c)
}
