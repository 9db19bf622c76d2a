package gateway

import (
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/meter"
)

// A connection that breaks takes along only what was on its wire: the rest waits for the concentrator to dial in again.
func TestWhatWasNotSentWaitsForABrokenConnection(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")

	flying := ask(t, nc, "301", `{"id":"flying","meter":"1"}`)
	d.asked()
	waiting := ask(t, nc, "301", `{"id":"waiting","meter":"2"}`)
	eventually(t, "both have arrived", func() bool { return held(g, "301") == 2 })
	d.conn.Close()
	flying.fails(meter.CodeLinkLost)
	eventually(t, "301 is expected back", func() bool { l := known(t, nc, "301"); return l.State == meter.LinkDown && l.Moving })
	between := ask(t, nc, "301", `{"id":"between","meter":"3"}`)
	eventually(t, "it waits", func() bool { return g.sentinel.held() == 1 })
	hasty := ask(t, nc, "301", `{"id":"hasty","meter":"4","timeout_ms":100}`)
	if a := hasty.fails(meter.CodeConcentratorOffline); !strings.Contains(a.Error.Message, "has not dialled in again yet: ask again in a minute") {
		t.Error(a.Error.Message)
	}

	go dialIn(t, g, "301").serve()
	waiting.reads("2.00")
	between.reads("3.00")
	if l := known(t, nc, "301"); l.State != meter.LinkUp || l.Moving {
		t.Errorf("%+v", l)
	}
}

// What waits for a concentrator that does not come back is answered by its deadline.
func TestWhatWaitsForABrokenConnectionEndsByItsDeadline(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	ask(t, nc, "301", `{"meter":"1"}`)
	d.asked()
	hasty := ask(t, nc, "301", `{"meter":"2","timeout_ms":900}`)
	patient := ask(t, nc, "301", `{"meter":"3"}`)
	eventually(t, "all have arrived", func() bool { return held(g, "301") == 3 })
	d.conn.Close()
	if a := hasty.fails(meter.CodeLinkLost); !strings.Contains(a.Error.Message, "nothing was sent") {
		t.Error(a.Error.Message)
	}
	go dialIn(t, g, "301").serve()
	patient.reads("3.00")
}

// One that registered as somebody else is not expected back, and nobody waits for it.
func TestALinkThatWasClosedOnPurposeIsNotWaitedFor(t *testing.T) {
	url := embed(t)
	g, _ := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	ask(t, nc, "301", `{"meter":"1"}`)
	d.asked()
	waiting := ask(t, nc, "301", `{"meter":"2"}`)
	eventually(t, "both have arrived", func() bool { return held(g, "301") == 2 })
	d.send([]byte("LOGIN:302"))
	waiting.fails(meter.CodeLinkLost)
	eventually(t, "301 is down", func() bool { l := known(t, nc, "301"); return l.State == meter.LinkDown && !l.Moving })
}

// The gateway at which a command waits can be stopped meanwhile.
func TestWhatWaitsOutlivesTheGatewayAtWhichItWaits(t *testing.T) {
	url := embed(t)
	first, stop := run(t, config(url, "gw-1"))
	second, _ := run(t, config(url, "gw-2"))
	nc := connect(t, url)
	d := dialIn(t, second, "301")
	up(t, nc, "301")
	eventually(t, "each knows the other", func() bool { return first.leases.others(first.id) && second.leases.others(second.id) })
	d.conn.Close()
	eventually(t, "301 is expected back", func() bool { return known(t, nc, "301").Moving })
	waiting := ask(t, nc, "301", `{"meter":"1"}`)
	eventually(t, "it waits at the first gateway", func() bool { return first.sentinel.held() == 1 })
	stop()
	eventually(t, "it waits at the second", func() bool { return second.sentinel.held() == 1 })
	go dialIn(t, second, "301").serve()
	if a := waiting.reads("1.00"); a.Gateway.String() != "gw-2" {
		t.Errorf("%+v", a)
	}
}
