package edge

import (
	"encoding/json"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/dianchao/dianchao/pkg/meter"
)

// errDraining refuses a read at a node that leaves.
var errDraining = meter.Errorf(meter.CodeDraining, "this edge node is about to leave: connect again and ask there")

// session is who asks: a WebSocket connection or one HTTP request, with its outstanding commands.
type session struct {
	edge    *Edge
	id      meter.SessionID
	dialect dialect
	parent  *trace.SpanContext // of what is asked, if its sender told one
	limiter *rate.Limiter      // nil: as fast as it likes
	// deliver hands one answer, a JSON object, to who asked. It is called with mu held, so that nothing overtakes
	// a terminal answer; it must not block.
	deliver func(c *command, stage meter.Stage, answer []byte)
	// idle gets a token when the last outstanding command ended.
	idle chan struct{}

	mu       sync.Mutex
	commands map[meter.CommandID]*command
}

// open makes a session and puts it on the roster; who opened it calls roster.remove.
func (e *Edge) open(d dialect, deliver func(*command, meter.Stage, []byte)) (*session, *meter.Error) {
	id, err := meter.ParseSessionID(uuid.NewString())
	if err != nil {
		return nil, meter.AsError(err)
	}
	s := &session{edge: e, id: id, dialect: d, deliver: deliver, idle: make(chan struct{}, 1), commands: map[meter.CommandID]*command{}}
	if r := e.config.SessionRate; r > 0 {
		s.limiter = rate.NewLimiter(rate.Limit(r), max(1, int(math.Ceil(2*r))))
	}
	if err := e.roster.add(s); err != nil {
		e.metrics.countRefused(err)
		return nil, err
	}
	e.metrics.sessions[d].Inc()
	return s, nil
}

// ask sends a command off; its answers go to deliver. If ask returns an error, the command was refused before it was
// sent and no answer follows.
func (s *session) ask(r read) *meter.Error {
	c, err := s.admit(r)
	if err != nil {
		s.refuse(r, err)
		return err
	}
	if err := s.edge.publish(c); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.take(c) {
			c.ended(meter.StageFailed, failedAnswer(r, err))
		}
		return err
	}
	return nil
}

// admit makes the command outstanding, if the session may have one more.
func (s *session) admit(r read) (*command, *meter.Error) {
	body, err := json.Marshal(r.Command)
	if err != nil {
		return nil, meter.AsError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.edge.config.SessionCommands
	switch {
	case s.edge.isDraining():
		return nil, errDraining
	case s.commands[r.Command.ID] != nil:
		return nil, meter.Errorf(meter.CodeBadCommand, "the id %s is outstanding already: its first read goes on", r.Command.ID)
	case len(s.commands) >= limit:
		return nil, meter.Errorf(meter.CodeTooManyCommands, "%d reads are outstanding in this session, which is its limit: wait for one of them", limit)
	case s.limiter != nil && !s.limiter.Allow():
		return nil, meter.Errorf(meter.CodeRateLimited, "this session may ask for %g reads a second: try again in a moment", s.edge.config.SessionRate)
	}
	c := &command{
		read: r, session: s, body: body,
		deadline: time.Now().Add(r.Command.Timeout),
		reply:    meter.SubjectReply(s.edge.id, s.id, r.Command.ID),
	}
	c.watch = time.AfterFunc(c.nextLook(c.deadline.Add(-r.Command.Timeout)), c.look)
	s.commands[r.Command.ID] = c
	c.admitted()
	return c, nil
}

// take ends a command and reports whether it was outstanding until now. mu is held.
func (s *session) take(c *command) bool {
	if s.commands[c.Command.ID] != c {
		return false
	}
	delete(s.commands, c.Command.ID)
	c.watch.Stop()
	if c.retry != nil {
		c.retry.Stop()
	}
	if len(s.commands) == 0 {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
	return true
}

// fail gives a command its terminal answer, unless it has had one.
func (s *session) fail(c *command, why *meter.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.take(c) {
		answer := failedAnswer(c.read, why)
		c.ended(meter.StageFailed, answer)
		s.deliver(c, meter.StageFailed, answer)
	}
}

// cancel withdraws the command with this id and reports whether there is one.
func (s *session) cancel(id meter.CommandID) bool {
	s.mu.Lock()
	c := s.commands[id]
	if c == nil {
		s.mu.Unlock()
		return false
	}
	c.cancelled = true
	unheld := c.retry != nil
	if left := time.Until(c.deadline); left > s.edge.pace.cancelled {
		c.watch.Reset(s.edge.pace.cancelled)
	}
	s.mu.Unlock()
	// What no gateway has seen, or can be told of, ends here.
	if s.edge.publishCancel(c) != nil || unheld {
		s.fail(c, errCancelled)
	}
	return true
}

// reads reports whether a read of this meter is outstanding.
func (s *session) reads(concentrator meter.ConcentratorID, m meter.Address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if c.Concentrator == concentrator && c.Command.Meter == m {
			return true
		}
	}
	return false
}

func (s *session) outstanding() []*command {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*command, 0, len(s.commands))
	for _, c := range s.commands {
		out = append(out, c)
	}
	return out
}

func (s *session) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.commands) == 0
}

// abandon fails what is outstanding: the node leaves and cannot wait any longer.
func (s *session) abandon() {
	for _, c := range s.outstanding() {
		s.fail(c, meter.Errorf(meter.CodeDraining, "this edge node leaves before the answer came: connect again and ask with the same id"))
	}
}

// forget drops what is outstanding without a word. It is not cancelled: who asks again with the same id joins it.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		s.take(c)
		c.left()
	}
}

// failure is a failed meter.Answer that leaves out what a command did not say or said wrongly.
type failure struct {
	ID           meter.CommandID      `json:"id,omitzero"`
	Concentrator meter.ConcentratorID `json:"concentrator,omitzero"`
	Meter        meter.Address        `json:"meter,omitzero"`
	Stage        meter.Stage          `json:"stage"`
	At           time.Time            `json:"at"`
	Error        *meter.Error         `json:"error"`
}

// failedAnswer is the terminal answer that the edge gives itself.
func failedAnswer(r read, why *meter.Error) []byte {
	return encode(failure{r.Command.ID, r.Concentrator, r.Command.Meter, meter.StageFailed, time.Now().UTC(), why})
}
