package edge

import (
	"strings"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// These tests hold the edge to "exactly one done or failed for each read", whatever is missing behind it.

func TestOfflineIsAnsweredAtOnceAndSaysSinceWhen(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.moving = 50 * time.Millisecond })
	p := connectPeer(t, s.URL())
	since := time.Date(2026, 11, 22, 16, 0, 1, 0, time.Local)
	down := p.link("102", meter.LinkDown, since)
	down.Reason = "the concentrator closed the connection"
	p.post(down)
	p.post(p.link("103", meter.LinkUp, since))
	until(t, "the edge knows both", func() bool { return len(n.board.all()) == 2 })
	for _, row := range []struct{ name, concentrator, words string }{
		{"never seen", "101", "never was online"},
		{"known to be down", "102", "offline since 2026-11-22 16:00:01"},
		{"down for a reason", "102", "(the concentrator closed the connection): check its power and SIM card"},
		{"said to be up", "103", "gateway gw-1, which held its link since 2026-11-22 16:00:01"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := n.session(t)
			// The answer must not come from the deadline: there are two minutes to it.
			c.send(`{"type":"read","id":"a","concentrator":"` + row.concentrator + `","meter":"101001","timeout_ms":120000}`)
			m := c.wantFailed("a", meter.CodeConcentratorOffline)
			if !strings.Contains(m.Error.Message, row.words) || !strings.Contains(m.Error.Message, "concentrator "+row.concentrator+" is offline") {
				t.Errorf("the message is %q, want %q in it", m.Error.Message, row.words)
			}
		})
	}
}

// Interest in a subject spreads asynchronously: a gateway that is there a moment later is found.
func TestConcentratorThatComesUpMeanwhileIsFound(t *testing.T) {
	s := embedNATS(t)
	p := connectPeer(t, s.URL())
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.unheld = []time.Duration{500 * time.Millisecond} })
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	of := n.roster.all()[0]
	until(t, "nobody took the command", func() bool {
		of.mu.Lock()
		defer of.mu.Unlock()
		for _, c := range of.commands {
			return c.tries > 0
		}
		return false
	})
	p.hold("101", answerAll)
	c.wantStage("a", meter.StageDone)
}

// A gateway that died a moment ago still stands in the bucket, and its concentrators are on their way to another.
func TestAConcentratorThatIsSaidToBeUpIsWaitedFor(t *testing.T) {
	s := embedNATS(t)
	p := connectPeer(t, s.URL())
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.unheld = []time.Duration{time.Millisecond} })
	p.post(p.link("101", meter.LinkUp, time.Now().Add(-time.Hour)))
	until(t, "the edge knows it", func() bool { return len(n.board.all()) == 1 })
	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001"}`)
	of := n.roster.all()[0]
	until(t, "nobody took the command, ten times", func() bool {
		of.mu.Lock()
		defer of.mu.Unlock()
		for _, c := range of.commands {
			return c.tries >= 10
		}
		return false
	})
	p.hold("101", answerAll)
	c.wantStage("a", meter.StageDone)
}

func TestTheEdgeAnswersForAGatewayThatDoesNot(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil, func(e *Edge) { e.pace.backstop = 50 * time.Millisecond })
	p := connectPeer(t, s.URL())
	p.hold("101", func(r request) {
		r.tell(meter.StageAccepted, "")
		r.tell(meter.StageSent, "")
	})
	late := make(chan request, 1)
	p.hold("102", func(r request) { late <- r })
	const timeout = `","timeout_ms":50}`

	c := n.session(t)
	c.send(`{"type":"read","id":"a","concentrator":"101","meter":"101001` + timeout)
	c.wantStage("a", meter.StageAccepted)
	c.wantStage("a", meter.StageSent)
	m := c.wantFailed("a", meter.CodeLinkLost)
	if !strings.Contains(m.Error.Message, "meter 101001 at concentrator 101 (sent)") {
		t.Errorf("the message is %q", m.Error.Message)
	}

	c.send(`{"type":"read","id":"b","concentrator":"102","meter":"102001` + timeout)
	c.wantFailed("b", meter.CodeInternal)
	answerAll(<-late)
	until(t, "the late answer was counted", func() bool { return n.late.Load() == 1 })
	c.send(`{"type":"ping"}`)
	c.want("pong")
}
