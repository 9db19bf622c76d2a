package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/dianchao/dianchao/pkg/driver/drivers"
	"github.com/dianchao/dianchao/pkg/meter"
)

// applicationServer is a peer of the original kind: it serves one connection at a time, and stops listening to it
// for good when two requests come in one segment.
type applicationServer struct {
	t        *testing.T
	listener net.Listener
	wait     sync.WaitGroup

	mu    sync.Mutex
	conn  net.Conn
	count int
}

func startApplicationServer(t *testing.T) *applicationServer {
	t.Helper()
	s := &applicationServer{t: t, listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	s.wait.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conn, s.count = conn, s.count+1
			s.mu.Unlock()
			s.serve(conn)
		}
	})
	t.Cleanup(func() { s.listener.Close(); s.hangUp(); s.wait.Wait() })
	return s
}

func (s *applicationServer) serve(conn net.Conn) {
	segment := make([]byte, 1024)
	for {
		n, err := conn.Read(segment)
		if err != nil {
			return
		}
		var q struct{ ConcentratorNo, WaterMtrAddress string }
		if err := json.Unmarshal(segment[:n], &q); err != nil {
			s.t.Errorf("the segment %q is not one request: %v", segment[:n], err)
			return
		}
		if q.WaterMtrAddress == "silent" {
			continue
		}
		answer := must(simplifiedchinese.GB18030.NewEncoder().String(
			fmt.Sprintf(`{"ConcentratorNo":"%s","WaterMtrAddress":"%s","Remark":"一号楼","AccumVal":123.450}`, q.ConcentratorNo, q.WaterMtrAddress)))
		for _, part := range []string{"\x00\x00" + answer[:20], answer[20:], "\x00"} {
			if _, err := conn.Write([]byte(part)); err != nil {
				return
			}
		}
	}
}

func (s *applicationServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *applicationServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func TestAnApplicationServerOfTheOriginalKind(t *testing.T) {
	url := embed(t)
	s := startApplicationServer(t)
	c := config(url, "gw-1")
	var dial Dial
	if err := dial.UnmarshalText([]byte("clicktocopy=" + s.listener.Addr().String() + "@101,102")); err != nil {
		t.Fatal(err)
	}
	c.Dial, c.Drivers = []Dial{dial}, drivers.New()
	c.Drivers.ClickToCopy.ResponseTimeout = 200 * time.Millisecond
	c.Drivers.ClickToCopy.Quiet = 100 * time.Millisecond
	run(t, c)
	nc := connect(t, url)
	up(t, nc, "101")
	up(t, nc, "102")

	// Twenty at once, over one connection, one outstanding.
	var all []*asking
	for i := range 20 {
		all = append(all, ask(t, nc, fmt.Sprint(101+i%2), fmt.Sprintf(`{"meter":"m-%d"}`, i)))
	}
	for i, a := range all {
		if got := a.reads("123.450"); got.Meter.String() != fmt.Sprint("m-", i) || got.Concentrator.String() != fmt.Sprint(101+i%2) {
			t.Fatalf("asked m-%d, answered %s %s", i, got.Concentrator, got.Meter)
		}
	}
	ask(t, nc, "101", `{"meter":"silent"}`).fails(meter.CodeMeterSilent)
	ask(t, nc, "101", `{"meter":"m-1"}`).reads("123.450")

	s.hangUp()
	eventually(t, "the gateway has dialled again", func() bool { return s.connections() == 2 })
	up(t, nc, "102")
	ask(t, nc, "102", `{"meter":"m-2"}`).reads("123.450")
	if l := known(t, nc, "102"); l.Driver != "clicktocopy" || l.State != meter.LinkUp {
		t.Fatalf("%+v", l)
	}

	// A second gateway with the same far end stands by, and does not take the one connection away.
	c.ID = "gw-2"
	standby, _ := run(t, c)
	eventually(t, "the standby knows who holds 101", func() bool { return standby.heldElsewhere(dial.Concentrators) })
	ask(t, nc, "101", `{"meter":"m-3"}`).reads("123.450")
	if n := s.connections(); n != 2 || !strings.HasPrefix(known(t, nc, "101").Gateway.String(), "gw-1") {
		t.Fatalf("%d connections were made", n)
	}
}
