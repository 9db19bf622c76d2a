package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// boot starts what `dianchao standalone` starts, on free ports.
func boot(t *testing.T, change func(*standaloneCommand)) *standalone {
	t.Helper()
	c := parse(t, "standalone", "--http=127.0.0.1:0", "--nats=127.0.0.1:0", "--listen=cjt188=127.0.0.1:0").Standalone
	if change != nil {
		change(&c)
	}
	s, _ := bootStoppable(t, c)
	return s
}

// bootStoppable starts c, and returns what stops it before the end of the test.
func bootStoppable(t *testing.T, c standaloneCommand) (*standalone, func()) {
	t.Helper()
	s := newStandalone(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("did not become ready")
	}
	return s, stop
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// read asks over HTTP and returns the answer.
func read(t *testing.T, s *standalone, body string) meter.Answer {
	t.Helper()
	r, err := http.Post(s.edge.URL()+"/v1/reads", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var a meter.Answer
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		t.Fatalf("status %s: %v", r.Status, err)
	}
	return a
}

func online(t *testing.T, s *standalone, concentrator string) {
	t.Helper()
	eventually(t, concentrator+" is online", func() bool {
		a := read(t, s, fmt.Sprintf(`{"concentrator":%q,"meter":"0","timeout_ms":1}`, concentrator))
		return a.Error != nil && a.Error.Code != meter.CodeConcentratorOffline
	})
}

func TestMetersThatNobodyHereSimulates(t *testing.T) {
	s := boot(t, func(c *standaloneCommand) { c.Simulator.Town = simulator.Town{} })
	plugInForeignDTU(t, s.gateway.Address("cjt188"), "301")
	online(t, s, "301")
	for _, row := range []struct{ name, address, want string }{
		{"values that the meter does not support", "78331505104145", `{"volume_m3":"5959.00","settlement_m3":null,"clock":null,"status":{"valve":"open","battery":"ok"},"raw_status":"0000"}`},
		{"DI low byte first, RSSI behind the frame", "201707010069", `{"volume_m3":"0.00","settlement_m3":"0.00","clock":"2017-08-19T16:54:59","status":{"valve":"abnormal","battery":"ok"},"raw_status":"1301"}`},
		{"text of the DTU before the frame", "02001700000921", `{"volume_m3":"2.00","settlement_m3":"0.00","clock":null,"status":{"valve":"open","battery":"ok"},"raw_status":"0000"}`},
		{"a clock with its high byte first", "201510270588", `{"volume_m3":"0.00","settlement_m3":"0.00","clock":"2017-01-09T17:20:06","status":{"valve":"open","battery":"ok"},"raw_status":"0000"}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := read(t, s, fmt.Sprintf(`{"concentrator":"301","meter":%q}`, row.address))
			got, _ := json.Marshal(a.Reading)
			if string(got) != row.want {
				t.Fatalf("got %s %v\nwant %s", got, a.Error, row.want)
			}
		})
	}
	t.Run("a meter that is silent", func(t *testing.T) {
		a := read(t, s, `{"concentrator":"301","meter":"11110011327325"}`)
		if a.Error == nil || a.Error.Code != meter.CodeMeterSilent {
			t.Fatalf("%+v", a)
		}
	})
	t.Run("an address that the protocol cannot express", func(t *testing.T) {
		a := read(t, s, `{"concentrator":"301","meter":"123456789012345"}`)
		if a.Error == nil || a.Error.Code != meter.CodeBadCommand || !strings.Contains(a.Error.Message, "123456789012345") {
			t.Fatalf("%+v", a.Error)
		}
	})
}

// session is a client of dianchao.v1 without the client library.
type session struct {
	t    *testing.T
	conn *websocket.Conn
}

func open(t *testing.T, s *standalone) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.edge.URL(), &websocket.DialOptions{Subprotocols: []string{"dianchao.v1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return &session{t, conn}
}

func (s *session) ask(id, concentrator, address string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return wsjson.Write(ctx, s.conn, map[string]any{"type": "read", "id": id, "concentrator": concentrator, "meter": address})
}

// hears returns the next stage of the read with this id.
func (s *session) hears(id string) (meter.Answer, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return meter.Answer{}, err
		}
		if !bytes.Contains(b, []byte(`"type":"answer"`)) {
			continue
		}
		var a meter.Answer
		if err := json.Unmarshal(b, &a); err != nil || a.ID.String() == id {
			return a, err
		}
	}
}

func (s *session) answer(id string) (meter.Answer, error) {
	for {
		if a, err := s.hears(id); err != nil || a.Stage.Terminal() {
			return a, err
		}
	}
}

// The program that this one is built after loses 99 reads of 100 with five people clicking.
func TestFiftyClientsOverTwoHundredConcentratorsLoseNothingAndMixNothingUp(t *testing.T) {
	const clients, reads, concentrators, meters = 50, 20, 200, 5
	s := boot(t, func(c *standaloneCommand) {
		c.Simulator.Town = simulator.Town{Concentrators: concentrators, Meters: meters}
		c.Gateway.BusGap = 0
	})
	var all sync.WaitGroup
	for i := range clients {
		client := open(t, s)
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for n := range reads {
				concentrator := fmt.Sprint(101 + random.IntN(concentrators))
				address := fmt.Sprintf("%s%03d", concentrator, 1+random.IntN(meters))
				id := fmt.Sprintf("%d-%d", i, n)
				if err := client.ask(id, concentrator, address); err != nil {
					t.Error(err)
					return
				}
				a, err := client.answer(id)
				if err != nil || a.Error != nil {
					t.Errorf("%s: %v %v", address, err, a.Error)
					return
				}
				wrong := a.Reading.Volume.Cmp(simulator.Volume(a.Concentrator, a.Meter, a.At.Add(-time.Minute))) < 0 ||
					a.Reading.Volume.Cmp(simulator.Volume(a.Concentrator, a.Meter, a.At.Add(time.Minute))) > 0
				if a.Meter.String() != address || a.Concentrator.String() != concentrator || wrong {
					t.Errorf("asked %s, answered %s %s", address, a.Meter, a.Reading.Volume)
				}
			}
		})
	}
	all.Wait()
}

func TestAskingAgainAfterALostConnectionIsTheSameExchange(t *testing.T) {
	s := boot(t, func(c *standaloneCommand) {
		c.Simulator.Delay = 300 * time.Millisecond
	})
	concentrator, address := must(meter.ParseConcentratorID("101")), must(meter.ParseAddress("101001"))
	first := open(t, s)
	if err := first.ask("again", "101", "101001"); err != nil {
		t.Fatal(err)
	}
	for {
		a, err := first.hears("again")
		if err != nil {
			t.Fatal(err)
		}
		if a.Stage == meter.StageSent {
			break
		}
	}
	first.conn.CloseNow()
	for _, when := range []string{"while it runs", "after it ended"} {
		second := open(t, s)
		if err := second.ask("again", "101", "101001"); err != nil {
			t.Fatal(err)
		}
		a, err := second.answer("again")
		if err != nil || a.Stage != meter.StageDone || a.Source != meter.SourceWire {
			t.Fatalf("%s: %+v %v", when, a, err)
		}
		if n := s.simulator.Frames(concentrator, address); n != 1 {
			t.Fatalf("%s: %d frames reached the meter", when, n)
		}
	}
}

func TestAStoreOutlivesTheProgram(t *testing.T) {
	c := parse(t, "standalone", "--http=127.0.0.1:0", "--nats=127.0.0.1:0", "--listen=cjt188=127.0.0.1:0", "--store="+t.TempDir()).Standalone
	kept := func(s *standalone) uint64 {
		nc := must(nats.Connect(s.nats.URL()))
		defer nc.Close()
		stream := must(must(jetstream.New(nc)).Stream(t.Context(), meter.StreamReadings))
		return must(stream.Info(t.Context())).State.Msgs
	}
	first, stop := bootStoppable(t, c)
	if a := read(t, first, `{"concentrator":"101","meter":"101001"}`); a.Stage != meter.StageDone {
		t.Fatalf("%+v", a.Error)
	}
	eventually(t, "the reading is kept", func() bool { return kept(first) == 1 })
	stop()
	second, _ := bootStoppable(t, c)
	if n := kept(second); n != 1 {
		t.Fatalf("%d readings are kept", n)
	}
}

func TestAPulledPlugIsSaidAtOnceAndSinceWhen(t *testing.T) {
	s := boot(t, nil)
	c := must(meter.ParseConcentratorID("102"))
	s.simulator.Unplug(c)
	eventually(t, "102 is offline", func() bool {
		a := read(t, s, `{"concentrator":"102","meter":"102001"}`)
		return a.Error != nil && a.Error.Code == meter.CodeConcentratorOffline && strings.Contains(a.Error.Message, "since")
	})
	s.simulator.Plug(c)
	eventually(t, "102 is back", func() bool {
		return read(t, s, `{"concentrator":"102","meter":"102001"}`).Stage == meter.StageDone
	})
}
