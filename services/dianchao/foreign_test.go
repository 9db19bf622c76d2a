package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// foreignDTU is a concentrator that shares no code with the project: it says LOGIN:<number>, sends heartbeats that
// split its frames, and answers with frames that were captured from real meters, one byte at a time. Of a captured
// frame only the serial number (and with it the checksum) is made to fit the question.
type foreignDTU struct {
	t    *testing.T
	conn net.Conn
	wait sync.WaitGroup
	mu   sync.Mutex // a segment at a time
}

// captured are answers to "read current data" as they were seen on real lines, by the meter's address, high byte first.
var captured = map[string]string{
	"78331505104145": "FEFE6810454110051533788116901FAA005959002CFFFFFFFF2CFFFFFFFFFFFFFF0000C216",
	"00201707010069": "68106900010717200081161F9002000000002C000000002C595416190817201301EF16524F", // two bytes of RSSI follow
	"02001700000921": "4354524C3A2632303137303730303030303030393231FEFEFE6810210900001700028116901F00000200002C000000002C0000000000000000005B16",
	"11110011327325": "", // silent
	"00201510270588": "6810880527101520008116901F01000000002C000000002C0620170901172000008E16",
}

const heartbeat = "LOG"

func plugInForeignDTU(t *testing.T, gateway, number string) *foreignDTU {
	t.Helper()
	conn, err := net.Dial("tcp", gateway)
	if err != nil {
		t.Fatal(err)
	}
	d := &foreignDTU{t: t, conn: conn}
	d.send("LOGIN:" + number)
	d.wait.Go(d.beat)
	d.wait.Go(d.answer)
	t.Cleanup(func() { conn.Close(); d.wait.Wait() })
	return d
}

func (d *foreignDTU) send(s string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := io.WriteString(d.conn, s)
	return err == nil
}

func (d *foreignDTU) beat() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range tick.C {
		if !d.send(heartbeat) {
			return
		}
	}
}

// answer reads requests of 16 bytes (68 T A0…A6 01 03 DI DI SER CS 16), after any number of FE.
func (d *foreignDTU) answer() {
	var b []byte
	chunk := make([]byte, 64)
	for {
		n, err := d.conn.Read(chunk)
		if err != nil {
			return
		}
		b = append(b, chunk[:n]...)
		for {
			b = bytes.TrimLeft(b, "\xFE")
			if len(b) < 16 {
				break
			}
			d.reply(b[:16])
			b = b[16:]
		}
	}
}

func (d *foreignDTU) reply(request []byte) {
	var address []byte
	for i := 8; i >= 2; i-- {
		address = append(address, request[i])
	}
	frame, err := hex.DecodeString(captured[hex.EncodeToString(address)])
	if err != nil {
		d.t.Error(err)
		return
	}
	if len(frame) == 0 {
		return
	}
	start := bytes.Index(frame, []byte{0x68, 0x10})
	serial, sum := start+13, start+11+int(frame[start+10])
	frame[sum] += request[13] - frame[serial]
	frame[serial] = request[13]
	for i, c := range frame {
		if i == len(frame)/2 || i == start+5 {
			d.send(heartbeat)
		}
		d.send(string([]byte{c}))
	}
	d.send(heartbeat)
}
