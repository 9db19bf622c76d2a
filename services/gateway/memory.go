package gateway

import (
	"sync"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// memory knows the commands that carry an id, while they run and for rememberFor after, so that asking again
// with the same id never reads twice.
type memory struct {
	mu       sync.Mutex
	commands map[memoryKey]*command
	ended    []ending // oldest first
}

type memoryKey struct {
	concentrator meter.ConcentratorID
	id           meter.CommandID
}

type ending struct {
	command *command
	at      time.Time
}

const (
	rememberFor = 2 * time.Minute
	rememberMax = 100_000 // ended commands; beyond it the oldest are forgotten early
)

func newMemory() *memory { return &memory{commands: make(map[memoryKey]*command)} }

func keyOf(c *command) memoryKey { return memoryKey{c.Target.Concentrator, c.ID} }

// begin remembers c, or returns the command that has its id already.
func (m *memory) begin(c *command) (known *command, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	if known, ok = m.commands[keyOf(c)]; !ok {
		m.commands[keyOf(c)] = c
	}
	return known, ok
}

// running returns the command with this id if it has no answer yet.
func (m *memory) running(concentrator meter.ConcentratorID, id meter.CommandID) (*command, bool) {
	m.mu.Lock()
	c, ok := m.commands[memoryKey{concentrator, id}]
	m.mu.Unlock()
	if !ok {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.last == nil || !c.last.Stage.Terminal()
}

// end keeps c's answer for a while. What was refused for want of room may be asked again with its id.
func (m *memory) end(c *command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.commands[keyOf(c)] != c {
		return // it carried no id
	}
	if e := c.last.Error; e != nil && e.Code == meter.CodeBusy {
		delete(m.commands, keyOf(c))
		return
	}
	m.ended = append(m.ended, ending{c, time.Now()})
}

// drop forgets a command that goes on elsewhere.
func (m *memory) drop(c *command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.commands[keyOf(c)] == c {
		delete(m.commands, keyOf(c))
	}
}

func (m *memory) forget(now time.Time) {
	n := 0
	for n < len(m.ended) && (now.Sub(m.ended[n].at) > rememberFor || len(m.ended)-n > rememberMax) {
		delete(m.commands, keyOf(m.ended[n].command))
		n++
	}
	m.ended = m.ended[n:]
}
