package simulator

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

func TestNewRefuses(t *testing.T) {
	for _, row := range []struct {
		name   string
		config Config
		err    string
	}{
		{"a town that is too large", Config{Gateway: "127.0.0.1:1", Town: Town{1, 1000}}, "from 1 to 999"},
		{"a gateway without port", Config{Gateway: "localhost", Town: Town{1, 1}}, `"localhost" is not HOST:PORT`},
		{"a negative heartbeat", Config{Heartbeat: -1}, "heartbeat"},
		{"a negative delay", Config{Delay: -1}, "delay"},
		{"a rate above one", Config{Faults: Faults{Wrong: 2}}, "wrong"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := New(row.config); err == nil || !strings.Contains(err.Error(), row.err) {
				t.Errorf("error %v, want one with %q", err, row.err)
			}
		})
	}
}

func TestAnEmptyTownIsReadyAndEnds(t *testing.T) {
	t.Parallel()
	waitReady(t, start(t, Config{}))
}

// near says whether a volume is what the meter showed between a moment and now.
func near(c meter.ConcentratorID, m meter.Address, got *meter.Decimal, since time.Time) bool {
	return got != nil && got.Cmp(Volume(c, m, since)) >= 0 && got.Cmp(Volume(c, m, time.Now())) <= 0
}

func TestEveryMeterOfTheTownAnswersForItself(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{3, 20}})
	waitReady(t, s)
	closed, low := 0, 0
	for range 3 {
		l := g.login()
		for m := range 20 {
			a := fmt.Sprintf("%s%03d", l.concentrator, m+1)
			before := time.Now()
			r := l.read(a)
			if !near(l.concentrator, address(t, a), r.Volume, before) {
				t.Errorf("meter %s says %s, it shows %s", a, r.Volume, Volume(l.concentrator, address(t, a), before))
			}
			if r.Settlement == nil || r.Settlement.Cmp(*r.Volume) > 0 {
				t.Errorf("meter %s settled at %v, above its volume %s", a, r.Settlement, r.Volume)
			}
			shown, err := time.ParseInLocation("2006-01-02T15:04:05", r.Clock.String(), time.Local)
			if err != nil || shown.Before(before.Truncate(time.Second)) || shown.After(time.Now()) {
				t.Errorf("meter %s has the clock %s, it is %s", a, r.Clock, before)
			}
			if *r.Status.Valve == meter.ValveClosed {
				closed++
			}
			if *r.Status.Battery == meter.BatteryLow {
				low++
			}
			if got := s.Frames(l.concentrator, address(t, a)); got != 1 {
				t.Errorf("meter %s saw %d requests, want 1", a, got)
			}
		}
	}
	if closed < 1 || closed > 6 || low < 1 || low > 9 {
		t.Errorf("%d valves are closed and %d batteries low, want a few of sixty", closed, low)
	}
	if s.TotalFrames() != 60 {
		t.Errorf("%d requests were counted, want 60", s.TotalFrames())
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const own, ser = "00000000101002", 0x5A
	for _, row := range []struct {
		name          string
		town          Town
		address       string
		control       byte
		data          []byte
		reply, prefix string // control and beginning of the data in hexadecimal; none for silence
		from          string
	}{
		{name: "current data, high byte first", address: own, control: 0x01, data: []byte{0x90, 0x1F, ser}, reply: "81", prefix: "901F5A", from: own},
		{name: "current data, low byte first", address: own, control: 0x01, data: []byte{0x1F, 0x90, ser}, reply: "81", prefix: "1F905A", from: own},
		{name: "address", address: own, control: 0x03, data: []byte{0x81, 0x0A, ser}, reply: "83", prefix: "810A5A", from: own},
		{name: "address, low byte first", address: own, control: 0x03, data: []byte{0x0A, 0x81, ser}, reply: "83", prefix: "0A815A", from: own},
		{name: "last month", address: own, control: 0x01, data: []byte{0xD1, 0x20, ser}, reply: "C1", prefix: "5A0000", from: own},
		{name: "valve", address: own, control: 0x04, data: []byte{0xA0, 0x17, ser, 0x55}, reply: "C4", prefix: "5A0000", from: own},
		{name: "another bus's meter", address: "00000000102002", control: 0x01, data: []byte{0x90, 0x1F, ser}},
		{name: "beyond the last meter", address: "00000000101003", control: 0x01, data: []byte{0x90, 0x1F, ser}},
		{name: "an answer", address: own, control: 0x81, data: []byte{0x90, 0x1F, ser}},
		{name: "wildcard with two meters", address: "wildcard", control: 0x03, data: []byte{0x81, 0x0A, ser}},
		{name: "wildcard with one meter", town: Town{1, 1}, address: "wildcard", control: 0x03, data: []byte{0x81, 0x0A, ser}, reply: "83", prefix: "810A5A", from: "00000000101001"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			town := row.town
			if town == (Town{}) {
				town = Town{1, 2}
			}
			request := cjt188.Frame{Type: 0x10, Address: anyMeter, Control: row.control, Data: row.data}
			if row.address != "wildcard" {
				a, err := cjt188.ParseAddress(row.address)
				if err != nil {
					t.Fatal(err)
				}
				request.Address = a
			}
			g := newTestGateway(t)
			s := start(t, Config{Gateway: g.address(), Town: town})
			l := g.login()
			l.send(request.Append(nil))
			if row.reply == "" {
				// The bus answers in order: what comes is the answer to the request after it.
				x := l.request("101001")
				l.send(x.Frame())
				if v := l.verdict(x); v.Reading == nil {
					t.Errorf("the request was answered: %+v", v)
				}
				return
			}
			raw, err := l.frame(patience)
			if err != nil {
				t.Fatal(err)
			}
			got, err := cjt188.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if control := fmt.Sprintf("%02X", got.Control); control != row.reply {
				t.Errorf("control %s, want %s", control, row.reply)
			}
			if data := meter.Hex(got.Data).String(); !strings.HasPrefix(data, row.prefix) {
				t.Errorf("data %s, want %s…", data, row.prefix)
			}
			if got.Address.String() != row.from {
				t.Errorf("from %s, want %s", got.Address, row.from)
			}
			if s.TotalFrames() != 1 {
				t.Errorf("%d requests were counted, want 1", s.TotalFrames())
			}
		})
	}
}

func TestRequestsArriveAsTheyLike(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	start(t, Config{Gateway: g.address(), Town: Town{1, 2}})
	l := g.login()
	first, second := l.request("101001"), l.request("101002")
	answered := func(exchanges ...driver.Exchange) {
		t.Helper()
		for _, x := range exchanges {
			if v := l.verdict(x); v.Reading == nil {
				t.Fatalf("no reading: %+v", v)
			}
		}
	}
	l.send(append(first.Frame(), second.Frame()...))
	answered(first, second)
	for _, b := range first.Frame() {
		l.send([]byte{b})
	}
	answered(first)
	l.send(append([]byte{0x00, 0x68, 0xFF, 0x10}, second.Frame()...))
	answered(second)
	broken := first.Frame()
	broken[len(broken)-2] ^= 0xFF
	l.send(append(broken, second.Frame()...))
	answered(second)
	// Half a request that is never completed must not swallow the next one.
	l.send(append(first.Frame()[:8:8], second.Frame()...))
	answered(second)
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	start(t, Config{Gateway: g.address(), Town: Town{1, 1}, Heartbeat: 20 * time.Millisecond})
	l := g.login()
	for range 3 {
		e, err := l.next(time.Now().Add(patience))
		if err != nil || e.Kind != driver.Heartbeat {
			t.Fatalf("got %+v, %v, want a heartbeat", e, err)
		}
	}
	l.read("101001")
}

func TestADelayedAnswer(t *testing.T) {
	t.Parallel()
	const delay = 150 * time.Millisecond
	g := newTestGateway(t)
	start(t, Config{Gateway: g.address(), Town: Town{1, 1}, Delay: delay})
	l := g.login()
	before := time.Now()
	l.read("101001")
	if took := time.Since(before); took < delay {
		t.Errorf("the meter answered within %s, its delay is %s", took, delay)
	}
}

func TestAnswersWaitInTheOrderOfTheirMoments(t *testing.T) {
	l := &link{concentrator: &concentrator{number: 101}}
	now := time.Now()
	for i, seconds := range []int{5, 1, 5, 3, 1} {
		l.put(answer{due: now.Add(time.Duration(seconds) * time.Second), bytes: []byte{byte(i)}})
	}
	var order []byte
	for _, a := range l.out {
		order = append(order, a.bytes...)
	}
	if want := []byte{1, 4, 3, 0, 2}; !bytes.Equal(order, want) {
		t.Errorf("they go out in the order %v, want %v", order, want)
	}
	for range 2 * maxWaiting {
		l.put(answer{due: now})
	}
	if len(l.out) != maxWaiting {
		t.Errorf("%d answers wait, at most %d may", len(l.out), maxWaiting)
	}
}

func TestThePlug(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{1, 1}})
	c := concentratorID(t, "101")
	for range 3 {
		l := g.login()
		if err := s.Unplug(c); err != nil {
			t.Fatal(err)
		}
		l.ended()
		select {
		case <-g.logins:
			t.Fatal("an unplugged concentrator logged in")
		case <-time.After(2 * firstBackoff):
		}
		if err := s.Plug(c); err != nil {
			t.Fatal(err)
		}
	}
	g.login().read("101001")
	for _, unknown := range []string{"102", "100", "0101", "DTU"} {
		if s.Unplug(concentratorID(t, unknown)) == nil || s.Plug(concentratorID(t, unknown)) == nil {
			t.Errorf("there is no concentrator %s to unplug", unknown)
		}
	}
}

func TestAConcentratorComesBackWhenTheGatewayClosesItsLink(t *testing.T) {
	t.Parallel()
	g := newTestGateway(t)
	s := start(t, Config{Gateway: g.address(), Town: Town{1, 1}})
	for n := range 3 {
		l := g.login()
		l.read("101001")
		l.conn.Close()
		if got := s.Frames(l.concentrator, address(t, "00000000101001")); got != n+1 {
			t.Errorf("%d requests after %d reads", got, n+1)
		}
	}
}

func TestAGatewayThatStartsLater(t *testing.T) {
	t.Parallel()
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := reserved.Addr().String()
	reserved.Close()
	s := start(t, Config{Gateway: address, Town: Town{2, 1}})
	later := make(chan error, 1)
	time.AfterFunc(firstBackoff, func() {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			t.Cleanup(func() { listener.Close() })
		}
		later <- err
	})
	if err := <-later; err != nil {
		t.Fatal(err)
	}
	waitReady(t, s)
}

func TestRunEndsWhileNothingAnswers(t *testing.T) {
	t.Parallel()
	// A listener that accepts nothing: its backlog takes the first connections, and nobody ever reads.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s, err := New(Config{Gateway: listener.Addr().String(), Town: Town{300, 1}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Run did not end")
	}
}

func TestAThousandConcentrators(t *testing.T) {
	const town = 1000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	accepted := make(chan struct{})
	var logins atomic.Int64
	go func() {
		defer close(accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			logins.Add(1)
		}
	}()
	defer func() {
		listener.Close()
		<-accepted
		for _, conn := range conns {
			conn.Close()
		}
	}()
	before := runtime.NumGoroutine()
	s := start(t, Config{Gateway: listener.Addr().String(), Town: Town{town, 999}, Heartbeat: time.Minute})
	waitReady(t, s)
	if more := runtime.NumGoroutine() - before; more > town+10 {
		t.Errorf("%d concentrators run in %d goroutines, want one each", town, more)
	}
}
