package faults

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// attack does harm until ctx ends; what it returns with an error before fails the test.
type attack func(ctx context.Context, address string) error

// flood sends what next returns as fast as it is taken, after an opening. A flood that is cut off begins anew.
func flood(opening string, next func() []byte) attack {
	return func(ctx context.Context, address string) error {
		return connected(ctx, address, func(conn net.Conn) {
			_, err := conn.Write([]byte(opening))
			for err == nil && ctx.Err() == nil {
				_, err = conn.Write(next())
			}
		})
	}
}

// drip sends an opening and then what is in drop, over and over, slowly enough to be no flood and fast enough that
// there is never a silence.
func drip(opening, drop string) attack {
	return func(ctx context.Context, address string) error {
		return connected(ctx, address, func(conn net.Conn) {
			_, err := conn.Write([]byte(opening))
			for i := 0; err == nil && pause(ctx, 10*time.Millisecond); i++ {
				_, err = conn.Write([]byte{drop[i%len(drop)]})
			}
		})
	}
}

// connected has a connection misused again and again until ctx ends.
func connected(ctx context.Context, address string, misuse func(net.Conn)) error {
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		misuse(conn)
		stop()
		conn.Close()
	}
	return nil
}

// crowdIn opens n connections and says nothing on them.
func crowdIn(n int) attack {
	return func(ctx context.Context, address string) error {
		for range n {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err != nil {
				return ignoreEnd(ctx, err)
			}
			defer conn.Close()
		}
		<-ctx.Done()
		return nil
	}
}

// pretend logs in as number every 50 ms, each time on a new connection, and leaves the old ones open.
func pretend(number string) attack {
	return func(ctx context.Context, address string) error {
		for pause(ctx, 50*time.Millisecond) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err != nil {
				return ignoreEnd(ctx, err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("LOGIN:" + number)); err != nil {
				return ignoreEnd(ctx, err)
			}
		}
		return nil
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

const chunk = 1 << 16

// garbage returns random bytes, the same in every run.
func garbage() func() []byte {
	random, b := rand.NewChaCha8([32]byte{1}), make([]byte, chunk)
	return func() []byte { _, _ = random.Read(b); return b } // never fails
}

func always(b byte) func() []byte {
	all := bytes.Repeat([]byte{b}, chunk)
	return func() []byte { return all }
}

// endless is the beginning of a CJ/T 188 answer of meter 101001 that announces 255 bytes, and of one that announces
// as many as the standard allows.
const (
	endless    = "\xFE\xFE\x68\x10\x01\x10\x10\x00\x00\x00\x00\x81\xFF"
	unfinished = "\xFE\xFE\x68\x10\x01\x10\x10\x00\x00\x00\x00\x81\x64"
)

// allowance is how much more memory the process may hold during an attack, the attacker's own end included: 16 KiB for
// each of five hundred connections.
const allowance = 8 << 20

func TestAHostilePeerHarmsNobodyElse(t *testing.T) {
	for _, row := range []struct {
		name   string
		attack attack
		victim string       // a concentrator that the attack is about, and what its clicks may be told
		codes  []meter.Code // beside a reading
	}{
		{name: "a flood of garbage", attack: flood("", garbage())},
		{name: "a flood of 68", attack: flood("", always(0x68))},
		{name: "a flood of FE", attack: flood("", always(0xFE))},
		{name: "a flood of login", attack: flood("", func() []byte { return bytes.Repeat([]byte("LOGIN:"), chunk/6) })},
		{name: "a frame that never ends", attack: drip(endless, "\x00")},
		{name: "a frame that begins over and over", attack: drip("", unfinished)},
		{name: "a number that never ends", attack: drip("LOGIN:", "9")},
		{name: "five hundred silent connections", attack: crowdIn(500)},
		{name: "a concentrator that answers with a flood of garbage", attack: flood("LOGIN:900", garbage()),
			victim: "900", codes: []meter.Code{meter.CodeBadAnswer, meter.CodeExpired, meter.CodeLinkLost, meter.CodeConcentratorOffline, meter.CodeMeterSilent}},
		{name: "a login as an existing concentrator every 50 ms", attack: pretend("101"),
			victim: "101", codes: slices.Concat(whatever, []meter.Code{meter.CodeExpired})},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, brisk)
			w.town(simulator.Config{Gateway: w.address(), Town: simulator.Town{Concentrators: 3, Meters: meters}, Delay: delay})
			reached(t, "the town is online", w.gateway.Holds(3))
			w.reads(t, "101")
			before := memory()

			ctx, stop := context.WithCancel(t.Context())
			var attacking sync.WaitGroup
			attacking.Go(func() {
				if err := row.attack(ctx, w.address()); err != nil {
					t.Errorf("the attack: %v", err)
				}
			})
			stopNeighbours := w.neighbours(20, "102", "103")
			if row.victim != "" {
				crowd := w.click(4, row.victim, 2*time.Second, row.codes, func() {}, func(clicks int) bool { return clicks >= 3 })
				t.Logf("%s: %v, the longest %s", row.victim, crowd.tally, crowd.longest)
			}
			stopNeighbours()
			if more := memory() - before; more > allowance {
				t.Errorf("the process holds %d KiB more than before", more>>10)
			} else {
				t.Logf("the process holds %d KiB more than before", more>>10)
			}
			stop()
			attacking.Wait()
			w.reads(t, "101")
		})
	}
}

// memory is what live objects and stacks take.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
