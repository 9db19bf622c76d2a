package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/meter"
)

func TestAGatewayThatLeavesLosesNothing(t *testing.T) {
	url := embed(t)
	leaving, stop := run(t, config(url, "gw-1"))
	staying, _ := run(t, config(url, "gw-2"))
	nc := connect(t, url)
	d := dialIn(t, leaving, "301")
	up(t, nc, "301")
	eventually(t, "each knows the other", func() bool { return leaving.leases.others(leaving.id) })

	flying := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	var waiting []*asking
	for i := range 3 {
		waiting = append(waiting, ask(t, nc, "301", fmt.Sprintf(`{"meter":"%d"}`, 2+i)))
	}
	eventually(t, "all have arrived", func() bool { return held(leaving, "301") == 4 })
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	eventually(t, "301 is said to move", func() bool { return known(t, nc, "301").Moving })

	// Who asks now waits for the concentrator, what is on the wire is finished, and what is not follows.
	between := ask(t, nc, "301", `{"id":"between","meter":"9"}`)
	d.answers(f, "1")
	if a := flying.reads("1.00"); a.Gateway.String() != "gw-1" {
		t.Fatalf("%+v", a)
	}
	if _, open := d.asked(); open {
		t.Fatal("it was asked again by the gateway that leaves")
	}
	next := dialIn(t, staying, "301")
	go next.serve()
	for i, a := range append(waiting, between) {
		want := fmt.Sprintf("%d.00", 2+i)
		if i == 3 {
			want = "9.00"
		}
		if got := a.reads(want); got.Gateway.String() != "gw-2" {
			t.Fatalf("%+v", got)
		}
	}
	<-stopped
	if l := known(t, nc, "301"); l.State != meter.LinkUp || l.Gateway.String() != "gw-2" || l.Moving {
		t.Fatalf("%+v", l)
	}
}

func TestTheLastGatewayLeavesAtOnce(t *testing.T) {
	url := embed(t)
	g, stop := run(t, config(url, "gw-1"))
	nc := connect(t, url)
	d := dialIn(t, g, "301")
	up(t, nc, "301")
	flying := ask(t, nc, "301", `{"meter":"1"}`)
	f, _ := d.asked()
	waiting := ask(t, nc, "301", `{"meter":"2"}`)
	eventually(t, "both have arrived", func() bool { return held(g, "301") == 2 })
	go stop()
	waiting.fails(meter.CodeLinkLost)
	d.answers(f, "1")
	flying.reads("1.00")
	stop()
	if l := known(t, nc, "301"); l.State != meter.LinkDown || l.Moving || !strings.Contains(l.Reason, "stopped") {
		t.Fatalf("%+v", l)
	}
}
